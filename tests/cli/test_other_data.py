"""`unibound evaluate` of other data than a run's own, and of single data."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from running import Cli, Words, refused

QUICK = ("--num-particles", 3, "--posterior", "none")


@pytest.fixture
def trained(cli: Cli, tiny: Words) -> str:
    assert cli(*tiny(epochs=1)).code == 0
    return "run"


def test_the_run_s_own_data_in_another_file_are_the_same(cli: Cli, trained: str, npz: Callable[..., Path]) -> None:
    own = json.loads(cli("evaluate", trained, *QUICK, "--json").out)
    other = npz("other.npz")
    same = json.loads(cli("evaluate", trained, *QUICK, "--data", other, "--json").out)
    assert (same["nll"], same["log_z"]) == (own["nll"], own["log_z"])
    flipped = np.load(other)["test"] ^ 1
    changed = json.loads(cli("evaluate", trained, *QUICK, "--data", npz("flipped.npz", test=flipped), "--json").out)
    assert changed["nll"] != own["nll"]
    assert changed["log_z"] == own["log_z"]


def test_bounds_of_single_data(cli: Cli, trained: str) -> None:
    for split, count in (("test", 8), ("train", 30)):
        result = cli("evaluate", trained, *QUICK, "--split", split, "--per-datum", "bounds.npz", "--json")
        assert result.code == 0, result.err
        with np.load("bounds.npz") as file:
            assert list(file) == ["bound"]
            bound = file["bound"]
        assert bound.shape == (count,)
        assert bound.dtype == np.float64
        assert -bound.mean() == pytest.approx(json.loads(result.out)["nll"], rel=1e-12)
        assert len(set(bound)) > 1


def test_what_the_run_is_not_of_is_refused(cli: Cli, trained: str, npz: Callable[..., Path]) -> None:
    wide = {name: np.zeros((9, 7), np.uint8) for name in ("train", "valid", "test")}
    counts = {name: np.full((9, 6), 7, np.uint8) for name in ("train", "valid", "test")}
    refused(cli("evaluate", trained, "--data", npz("wide.npz", **wide)), "shape [9, 7]", "[N, 6]")
    refused(cli("evaluate", trained, "--data", npz("counts.npz", **counts)), "over bits, but the data hold 7")
    refused(cli("evaluate", trained, "--data", "nowhere.npz"), "nowhere.npz")
    os.mkdir("folder")
    refused(cli("evaluate", trained, "--per-datum", "folder/no/such.npz"), "--per-datum", "existing folder")
    refused(cli("evaluate", trained, "--per-datum", "bounds.csv"), "--per-datum bounds.csv is no .npz file")
    words = ("--per-datum", "x.npz", "--partition", "ais,exact")
    refused(cli("evaluate", trained, *words), "--per-datum writes one estimate, not those by ais, exact")
