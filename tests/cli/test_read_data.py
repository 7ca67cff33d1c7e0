"""`unibound data`: what would be read of a file, and that a run reads the same."""

import json
from pathlib import Path

import pytest
from running import Cli

from unibound.data.tables import read
from unibound.support import boolean, same


@pytest.fixture
def table() -> str:
    """Two columns of bits, and one of classes."""
    rows = [f"{row % 2},{row % 3 % 2},{'ab'[row % 2]}" for row in range(20)]
    Path("x.csv").write_text("\n".join(["one,two,class", *rows]) + "\n")
    return "x.csv"


def test_the_command_says_what_would_be_read(cli: Cli, table: str) -> None:
    found = json.loads(cli("data", table, "--json").out)
    assert (found["shape"], found["likelihoods"]) == ([2], ["bernoulli", "categorical"])
    assert {name: one["count"] for name, one in found["parts"].items()} == {"train": 17, "valid": 1, "test": 2}
    splits = read(Path(table))
    assert found["parts"]["train"]["mean"] == pytest.approx(splits.train.mean().item())
    assert sum(found["classes"].values()) == 17
    assert same(splits.support, boolean)
    shown = cli("data", table).out
    assert "made of bits" in shown
    assert f"classes of train: {', '.join(f'{name} {count}' for name, count in found['classes'].items())}" in shown
    assert "8 x 8" in cli("data", "digits").out


def test_a_run_takes_what_the_command_reads(cli: Cli, table: str) -> None:
    words = ["--prior", "gaussian", "--estimator", "sgvb", "--epochs", 1, "--num-particles", 3, "--run-dir", "run"]
    assert "test NLL" in cli("run", "--data", table, *words).out
