"""Training that begins with the weights of another run, or of an export of one."""

import shutil
from pathlib import Path

import pytest
import torch
from running import Cli, Words, refused

import unibound
from unibound import Run
from unibound.runs.export import export
from unibound.settings import sources


def begun(path: str) -> dict[str, torch.Tensor]:
    """The weights with which training begins in a new run of these settings."""
    run = Run.create(Path("again"), sources.resolve([sources.read(Path(path) / "resolved.toml")]))
    run.training()
    shutil.rmtree("again")
    return dict(run.joint.state_dict())


def test_training_begins_with_the_weights_of_another_run(cli: Cli, tiny: Words) -> None:
    assert cli(*tiny("first", epochs=2)).code == 0
    assert cli(*tiny("second", epochs=1, warm_start="first")).code == 0
    there, found = Run.open("first").joint.state_dict(), begun("second")
    assert there.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in there.items())
    assert not all(torch.equal(value, begun("first")[name]) for name, value in there.items())


def test_chains_of_another_number_are_begun_anew(cli: Cli, tiny: Words) -> None:
    assert cli(*tiny("first", epochs=1)).code == 0
    assert cli(*tiny("second", epochs=1, warm_start="first", prior__num_chains=7)).code == 0
    there, found = Run.open("first").joint, begun("second")
    assert all(torch.equal(value, found[name]) for name, value in there.named_parameters())
    assert found["p.prior.chains"].shape[0] == 7


def test_an_export_is_as_good_and_may_go_once_a_checkpoint_is_there(cli: Cli, tiny: Words) -> None:
    assert cli(*tiny("first", epochs=1)).code == 0
    export(Path("first"), Path("model"))
    assert cli(*tiny("second", epochs=1, warm_start="model")).code == 0
    weights, found = Run.open("first").joint.state_dict(), begun("second")
    assert all(torch.equal(value, found[name]) for name, value in weights.items())
    shutil.rmtree("model")
    assert cli("run", "--resume", "second", "--epochs", 2).code == 0


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ({"warm_start": "nowhere"}, ["nowhere"]),
        ({"warm_start": "first", "model__num_latents": 6}, ["warm_start:", "of [", "in first", "resolved.toml"]),
        ({"warm_start": "first", "prior__num_hidden": 9}, ["warm_start: p.prior.", "in first"]),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    cli: Cli, tiny: Words, flags: dict[str, object], parts: list[str]
) -> None:
    assert cli(*tiny("first", epochs=1)).code == 0
    refused(cli(*tiny("second", **flags)), *parts)
    assert not Path("second").exists()


def test_from_python(cli: Cli, tiny: Words) -> None:
    x = torch.rand(40, 6) < 0.5
    words = {"model__num_latents": 3, "model__hidden": (4,), "prior": "bernoulli", "epochs": 1, "progress": False}
    first = unibound.fit(x, num_particles=10, run_dir="first", **words)
    second = unibound.fit(x, num_particles=10, warm_start="first", optimizer__learning_rate=1e-12, **words)
    for name, value in first.joint.named_parameters():
        torch.testing.assert_close(value, second.joint.get_parameter(name))
