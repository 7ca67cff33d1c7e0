"""More epochs for a finished run: it goes on from its end, and at a constant rate it is as if it had been as long."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from running import Cli, Words

from unibound.runs import checkpoint
from unibound.runs.folder import lengthen, read_settings

CONSTANT = {"optimizer.schedule": "constant"}


def weights(folder: str) -> dict[str, torch.Tensor]:
    return checkpoint.load_weights(checkpoint.newest(Path(folder) / "checkpoints"))


def epochs(folder: str) -> list[tuple[int, Any]]:
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [(line["done"], line["bound"]) for line in map(json.loads, lines)]


def nll(folder: str) -> float:
    return json.loads((Path(folder) / "evaluation.json").read_text())["nll"]


@pytest.mark.parametrize("killed", [False, True])
def test_at_a_constant_rate_it_is_the_longer_run(cli: Cli, tiny: Words, killed: bool) -> None:
    assert cli(*tiny("whole", epochs=4, **CONSTANT)).code == 0
    assert cli(*tiny("run", epochs=2, **CONSTANT)).code == 0
    first, short = epochs("run"), nll("run")
    if killed:  # before the first of its new epochs
        lengthen(Path("run"), 4)
        assert not Path("run/evaluation.json").exists()
    found = cli("run", "--resume", "run") if killed else cli("run", "--resume", "run", "--epochs", 4)
    assert found.code == 0, found.err
    assert "run goes on to 4 epochs of its last stage" in " ".join(found.err.split())
    assert epochs("run")[:2] == first
    assert epochs("run") == epochs("whole")
    longer, whole = weights("run"), weights("whole")
    assert all(torch.equal(longer[name], whole[name]) for name in whole)
    assert nll("run") == nll("whole") != short
    again = cli("run", "--resume", "run", "--json")
    assert json.loads(again.out)["nll"] == nll("run")
    assert "goes on to" not in again.err
    assert read_settings(Path("run")).stages[-1].epochs == 4


def test_as_many_change_nothing_and_fewer_are_refused(cli: Cli, tiny: Words) -> None:
    assert cli(*tiny(epochs=2)).code == 0
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file() and path.name != ".lock"}
    assert cli("run", "--resume", "run", "--epochs", 2).code == 0
    for words, culprit in (
        (("--epochs", 1), "--epochs 1: the last stage of run has 2 already; name more"),
        (("--epochs", 0), "--epochs: must be >= 1"),
        (("--epochs", 4, "--batch-size", 5), "--resume goes on with the settings of run; leave the other options out"),
    ):
        refused = cli("run", "--resume", "run", *words)
        assert refused.code == 2
        assert culprit in " ".join(refused.err.split())
    assert {path: path.read_bytes() for path in before} == before


def test_a_stage_that_ended_by_its_patience_does_not_go_on(cli: Cli, tiny: Words) -> None:
    rate = {"optimizer.learning-rate": 0.5, "patience": 1, "validate-every": 1}
    assert cli(*tiny(epochs=30, **rate)).code == 0
    assert len(epochs("run")) < 30
    refused = cli("run", "--resume", "run", "--epochs", 40)
    assert refused.code == 2
    assert "ended by its patience" in refused.err
    assert Path("run/evaluation.json").exists()


TWO = """
data = "data.npz"
num_particles = 3
[model]
num_latents = 4
hidden = [8]
[prior]
name = "bernoulli"
[[stage]]
epochs = 2
estimator = "nvil"
[[stage]]
epochs = 1
estimator = "rws"
averaging = 0.9
"""


def test_of_several_stages_the_last_goes_on(cli: Cli, npz: Callable[..., Path]) -> None:
    npz("data.npz")
    Path("two.toml").write_text(TWO)
    assert cli("run", "--config", "two.toml", "--run-dir", "two").code == 0
    assert cli("run", "--resume", "two", "--epochs", 3).code == 0
    assert [stage.epochs for stage in read_settings(Path("two")).stages] == [2, 3]
    assert [done for done, _ in epochs("two")] == [1, 2, 3, 4, 5]
