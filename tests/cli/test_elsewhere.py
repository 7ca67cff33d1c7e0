"""All that is done with a run is done on another device than the CPU, as on a GPU."""

from collections.abc import Iterator

import pytest
import torch
from elsewhere import DEVICE, Elsewhere, another_device
from running import Cli, Words

REALS = {"prior": "gaussian", "estimator": "sgvb"}


@pytest.fixture(autouse=True)
def _there() -> Iterator[None]:
    with another_device():
        yield


def test_what_is_there_meets_nothing_that_is_here() -> None:
    x = torch.rand(3, device=DEVICE)
    assert isinstance(x + 1, Elsewhere)
    assert not isinstance((2 * x).cpu(), Elsewhere)
    for mixed in (lambda: x + torch.rand(3), lambda: torch.cat([torch.rand(2), x]), lambda: torch.rand(2, 3) @ x):
        with pytest.raises(RuntimeError, match="on the same device"):
            mixed()
    with pytest.raises(TypeError, match="numpy"):
        x.numpy()
    module = torch.nn.Linear(3, 1).to(DEVICE)
    module(x).backward()
    assert isinstance(module.weight.grad, Elsewhere)


def test_a_run_and_all_that_is_asked_of_it(cli: Cli, tiny: Words) -> None:
    assert cli(*tiny(epochs=1, device="meta", keep="best")).code == 0
    for words in (
        ("run", "--resume", "run", "--epochs", 2),
        ("evaluate", "run", "--partition", "bdmc,exact"),
        ("diagnose", "run", "--probe-steps", 2),
        ("sample", "run"),
        ("report", "run"),
        ("export", "run", "--to", "there"),
    ):
        result = cli(*words)
        assert result.code == 0, result.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        REALS | {"model": "flow"},
        REALS | {"model": "ladder"},
        REALS | {"model": "decoder"},
        {"model": "sbn", "estimator": "rws"},
        {"model": "diffusion", "prior": "bernoulli"},
        {"model": "identity", "prior": "dbm", "estimator": "cd"},
        {"model": "identity", "prior": "nade", "estimator": "sgvb"},
        {"model": "identity", "transition": "gibbs_with_gradients", "estimator": "cd"},
        {"estimator": "contrastive_rws"},
        {"prior": "bernoulli", "estimator": "wake_sleep"},
    ],
    ids=lambda chosen: "-".join(chosen.values()),
)
def test_other_models(cli: Cli, tiny: Words, chosen: dict[str, str]) -> None:
    result = cli(*tiny(device="meta", epochs=1, without=("model", "prior", "estimator"), **chosen))
    assert result.code == 0, result.err
