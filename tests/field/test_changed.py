"""Data that changed behind a run are noticed by whatever looks at them, and what needs no data does without."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from running import Cli, refused

from unibound import Run

RNG = np.random.default_rng(0)
X = (RNG.random((4, 6)) < 0.5)[RNG.integers(0, 4, 200)] ^ (RNG.random((200, 6)) < 0.1)
QUICK = {"partition__num_temperatures": 5, "partition__num_chains": 4}
CONVOLVED = {"model": "denoising", "prior": "convolved", "estimator": "dae"}
LOOKS = {
    "evaluate": "evaluate run --num-particles 3",
    "certify": "certify run --num-chains 4 --temperatures 5 --raise-cases 0 --num-particles 3",
    "diagnose": "diagnose run --count 5 --num-particles 4 --probe-steps 9",
    "resume": "run --resume run",
}


def flipped(x: np.ndarray) -> np.ndarray:
    """Data with one bit changed."""
    other = x.copy()
    other[-1, -1] ^= 1
    return other


@pytest.mark.parametrize("look", [look for look in LOOKS if look != "resume"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_changed_data_are_noticed(look: str, split: str, npz: Callable[..., Path], run: Callable, cli: Cli) -> None:
    x = X.astype(np.uint8)
    run(npz(x), **QUICK)
    npz(x, **{split: flipped(x[:120] if split == "train" else x[160:])})
    refused(cli(*LOOKS[look].split()), "the data are not those that run was trained on")
    npz(x.astype(np.float32))  # the same, in another file
    assert cli(*LOOKS["diagnose"].split()).code == 0


def test_a_sample_of_a_prior_made_of_data_notices_too(npz: Callable[..., Path], run: Callable, cli: Cli) -> None:
    x = X.astype(np.uint8)
    run(npz(x), **CONVOLVED)
    assert cli("sample", "run").code == 0
    npz(x, train=1 - x[:120])
    for words in ("sample run", "evaluate run --num-particles 3"):
        refused(cli(*words.split()), "the data are not those that run was trained on")
    os.remove("data.npz")
    refused(cli("sample", "run"), "data.npz")


@pytest.mark.parametrize(
    "words", [{}, {"prior": "gaussian", "estimator": "sgvb"}, {"model": "identity", "estimator": "cd"}]
)
def test_samples_and_reports_need_no_data(words: dict, npz: Callable[..., Path], run: Callable, cli: Cli) -> None:
    run(npz(X), **words, **({} if words.get("prior") else QUICK))
    assert cli("sample", "run", "--out", "with.png").code == 0
    os.remove("data.npz")
    assert cli("sample", "run", "--out", "without.png").code == 0
    assert Path("with.png").read_bytes() == Path("without.png").read_bytes()
    assert cli("report", "run").code == 0
    assert Run.open("run").joint.q is not None
    refused(cli("evaluate", "run"), "data.npz")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mean": "x"}', '{"mean": [NaN], "prepared": ""}', '{"mean": 3}'])
def test_what_is_kept_of_data_and_cannot_be_read_is_read_off_the_data(
    text: str, npz: Callable[..., Path], run: Callable, cli: Cli
) -> None:
    run(npz(X), prior="bernoulli")
    Path("run/data.json").write_text(text)
    assert cli("sample", "run").code == 0
    npz(flipped(X))
    refused(cli("evaluate", "run"), "the data are not those that run was trained on")


def test_a_comparison_is_of_one_data_set(npz: Callable[..., Path], cli: Cli) -> None:
    x = X.astype(np.uint8)
    words = ["compare", "--estimators", "vimco", "--seeds", 1, "--epochs", 1, "--prior", "bernoulli", "--out", "cmp"]
    words += ["--evaluation-particles", 3, "--data", npz(x), "--json"]
    first = cli(*words)
    assert first.code == 0, first.err
    assert json.loads(cli(*words).out) == json.loads(first.out)
    npz(x, test=flipped(x[160:]))
    again = cli(*words)
    assert again.code == 2
    assert "the data are not those that cmp/vimco-seed0 was trained on" in again.err.splitlines()[-1]


def test_plugins_that_were_used_are_named(npz: Callable[..., Path], run: Callable) -> None:
    run(npz(X), prior="bernoulli")
    used = json.loads(Path("run/env.json").read_text())["plugins"]
    assert "prior bernoulli from unibound 0.2.0" in used
    assert not any("rbm" in one for one in used)
