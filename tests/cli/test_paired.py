"""`unibound compare RUN RUN`: differences of single data, and what cannot be paired."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from running import Cli, Words, refused

MORE = ("--evaluation-particles", 20)


@pytest.fixture
def two(cli: Cli, tiny: Words) -> None:
    for run, seed in (("one", 1), ("two", 2)):
        words = tiny(run, without=("estimator", "prior"), seed=seed, epochs=1, prior="gaussian", estimator="sgvb")
        assert cli(*words).code == 0


@pytest.mark.usefixtures("two")
def test_a_difference_is_that_of_single_data(cli: Cli) -> None:
    found = json.loads(cli("compare", "one", "two", *MORE, "--json").out)["runs"]
    bounds = []
    for run in ("one", "two"):
        assert cli("evaluate", run, "--num-particles", 20, "--posterior", "none", "--per-datum", "b.npz").code == 0
        with np.load("b.npz") as file:
            bounds.append(file["bound"])
    gap = bounds[0] - bounds[1]
    assert (found[0]["difference"], found[0]["stderr"]) == (0.0, 0.0)
    assert found[1]["difference"] == pytest.approx(gap.mean(), rel=1e-12)
    assert found[1]["stderr"] == pytest.approx(gap.std(ddof=1) / len(gap) ** 0.5, rel=1e-12)
    assert found[1]["nll"] - found[0]["nll"] == pytest.approx(found[1]["difference"], rel=1e-9)
    back = json.loads(cli("compare", "two", "one", *MORE, "--json").out)["runs"]
    assert back[1]["difference"] == -found[1]["difference"]
    shown = cli("compare", "one", "two", *MORE).out
    assert f"{found[1]['difference']:+.3f} ± {found[1]['stderr']:.3f}" in shown


def test_runs_with_log_z_say_what_it_adds(cli: Cli, tiny: Words) -> None:
    for run, seed in (("one", 1), ("two", 2)):
        assert cli(*tiny(run, seed=seed, epochs=1)).code == 0
    first, second = json.loads(cli("compare", "one", "two", *MORE, "--json").out)["runs"]
    assert first["log_z_stderr"] == 0.0
    assert second["log_z_stderr"] > 0.0


@pytest.mark.usefixtures("two")
def test_what_cannot_be_paired_is_refused(cli: Cli, tiny: Words, npz: Callable[..., Path]) -> None:
    x = np.eye(6, dtype=np.uint8)
    words = tiny("three", without=("estimator", "prior"), epochs=1, prior="gaussian", estimator="sgvb")
    words[words.index("--data") + 1] = str(npz("other.npz", test=x))
    assert cli(*words).code == 0
    refused(cli("compare", "one", "three"), "three was trained on other data than one")
    refused(cli("compare", "one"), "two runs or more")
    refused(cli("compare", "one", "./one"), "named twice")
    refused(cli("compare", "one", "nowhere"), "nowhere is not the folder of a run")
    refused(cli("compare", "one", "two", "--estimators", "vimco"), "leave out all options")
    refused(cli("compare", "one", "two", "--epochs", 3), "leave out all options")
    refused(cli("compare"), "--estimators")
