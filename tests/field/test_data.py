"""What data are made of is read off the data, and never changed to suit a default without a word."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from running import Cli, refused

from unibound import Run, Splits, UsageError
from unibound.data import binarize, read_npz
from unibound.data.binarization import Binarization, sample_bits
from unibound.support import describe

Write = Callable[..., Path]
RNG = np.random.default_rng


SMALL = {
    "digits of 17 levels": RNG(0).integers(0, 17, (100, 6)),
    "images of 4 bits": RNG(0).integers(0, 16, (100, 6)),
    "ratings": RNG(0).integers(1, 6, (100, 6)),
    "counts": RNG(0).poisson(1.5, (100, 6)),
    "one 2 in the last datum": np.vstack([RNG(0).integers(0, 2, (99, 6)), [[2, 0, 0, 0, 0, 0]]]),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("kind", SMALL)
def test_small_integers_are_what_they_are(kind: str, dtype: type, npz: Write, cli: Cli) -> None:
    x = SMALL[kind]
    splits = read_npz(npz(x.astype(dtype)))
    assert np.array_equal(torch.cat([part for _, part in splits.items()]).numpy(), x.astype(np.float32))
    assert describe(splits.support) == "counts"
    for how in ("threshold", "static", "dynamic"):
        with pytest.raises(UsageError, match="holds counts, which are no grey levels"):
            binarize(splits, how)
    refused(cli("run", "--data", "data.npz", "--run-dir", "run"), "counts", "levels")
    assert not Path("run").exists()


def test_levels_that_are_declared_are_scaled_by_the_greatest(npz: Write) -> None:
    x = SMALL["digits of 17 levels"]
    splits = binarize(read_npz(npz(x.astype(np.uint8), levels=np.array(17))), "threshold")
    assert np.array_equal(torch.cat([part for _, part in splits.items()]).numpy(), x >= 8)


@pytest.mark.parametrize("how", ["threshold", "static"])
def test_bits_that_never_vary_are_refused(how: Binarization, npz: Write, cli: Cli) -> None:
    dark = np.zeros((100, 6), np.uint8)
    dark[-1] = np.array([0, 255, 255, 0, 255, 0])  # the file is one of pictures, and its training data are black
    with pytest.raises(UsageError, match="all training data are the same"):
        binarize(read_npz(npz(dark)), how)
    refused(cli("run", "--data", "data.npz", "--binarization", how), "all training data are the same")


def test_dim_pictures_under_dynamic_binarization_are_never_constant_by_rounding(npz: Write) -> None:
    x = RNG(0).integers(0, 100, (100, 6)).astype(np.uint8)
    x[-1] = 255
    splits = binarize(read_npz(npz(x)), "dynamic")
    assert splits.train.max() == pytest.approx(x[:60].max() / 255)


UNIT = 1 / (1 + np.exp(-RNG(0).normal(size=(600, 4))))
GAUSSIAN = {"estimator": "sgvb", "prior": "gaussian", "likelihood": "gaussian", "model__num_latents": 2}


@pytest.mark.parametrize("scale", [1.0, 7.0, -3.0])
def test_reals_under_a_density_are_left_alone(scale: float, npz: Write, run: Callable) -> None:
    x = (scale * UNIT).astype(np.float32)
    document, said = run(npz(x), **GAUSSIAN)
    assert document["prepared"] == ""
    assert "data:" not in said
    assert np.array_equal(Run.open("run").split("test").numpy(), x[480:])


@pytest.mark.parametrize("likelihood", ["laplace", "logistic", "student_t"])
def test_so_they_are_under_the_others(likelihood: str, npz: Write, run: Callable) -> None:
    document, _ = run(npz(UNIT), **GAUSSIAN | {"likelihood": likelihood})
    assert document["prepared"] == ""
    assert np.array_equal(Run.open("run").split("train").numpy(), UNIT[:360].astype(np.float32))


@pytest.mark.parametrize("how", ["threshold", "static", "dynamic"])
def test_binarization_of_what_need_not_be_bits_is_refused(how: str, npz: Write, cli: Cli) -> None:
    words = "run --prior gaussian --likelihood gaussian --estimator sgvb --binarization"
    result = cli(*words.split(), how, "--data", npz(UNIT))
    refused(result, f"binarization {how} makes bits, but likelihood gaussian is over reals")


def test_the_prior_itself_over_reals_is_the_normal_of_the_data(npz: Write, run: Callable) -> None:
    rate = {"optimizer__learning_rate": 0.02, "batch_size": 60, "epochs": 100}
    normal = {"model": "identity", "estimator": "iwae", "prior": "gaussian", "prior__covariance": "full"}
    document, said = run(npz(UNIT), **normal, **rate)
    assert "bernoulli" not in said
    mean, covariance = UNIT[:360].mean(0), np.cov(UNIT[:360].T, bias=True)
    off = UNIT[480:] - mean
    right = (off @ np.linalg.inv(covariance) * off).sum(1).mean() / 2 + np.linalg.slogdet(2 * math.pi * covariance)[
        1
    ] / 2
    assert document["nll"] == pytest.approx(right, abs=0.03)
    assert document["nll_low"] < 0  # a density: nothing holds it up


def test_grey_levels_under_a_density_count_bits_of_a_level(npz: Write, run: Callable) -> None:
    x = RNG(0).integers(0, 256, (100, 6)).astype(np.uint8)
    document, said = run(npz(x), **GAUSSIAN)
    assert "256 grey levels scaled to [0, 1]" in document["prepared"]
    assert document["prepared"] in said
    right = (document["nll"] + 6 * math.log(255)) / (6 * math.log(2))
    assert document["bits_per_dim"] == pytest.approx(right)
    assert Run.open("run").split("train").numpy() == pytest.approx(x[:60] / 255)


def test_declared_levels_count_as_such(npz: Write, run: Callable) -> None:
    document, _ = run(npz(SMALL["digits of 17 levels"], levels=np.array(17)), **GAUSSIAN)
    right = (document["nll"] + 6 * math.log(16)) / (6 * math.log(2))
    assert document["bits_per_dim"] == pytest.approx(right)


def test_levels_under_masses_count_bits_of_a_level_too(npz: Write, run: Callable, cli: Cli) -> None:
    """Noise of all 256 levels has eight bits, and nothing can tell it in less."""
    path, of_levels = npz(RNG(0).integers(0, 256, (100, 6)).astype(np.uint8)), {"likelihood": "discretized_logistic"}
    document, said = run(path, estimator="sgvb", prior="gaussian", **of_levels)
    assert "256 grey levels kept" in said
    assert document["bits_per_dim"] == pytest.approx(document["nll"] / (6 * math.log(2)))
    assert document["bits_per_dim"] > 8
    reason = "likelihood discretized_logistic is over 17 levels"
    refused(
        cli("run", "--data", path, "--likelihood", "discretized_logistic", "--likelihood.levels", 17), reason, "256"
    )


@pytest.mark.parametrize("kind", ["bits", "spins", "counts"])
def test_a_density_trained_on_masses_is_said(kind: str, npz: Write, run: Callable) -> None:
    x = RNG(0).integers(0, 2, (100, 6))
    document, said = run(npz({"bits": x, "spins": 2 * x - 1, "counts": 3 * x}[kind]), **GAUSSIAN)
    assert document["prepared"].startswith(f"{kind} under a density")
    assert document["prepared"] in said


@pytest.mark.parametrize(("how", "words"), [(None, "set to bits at one half"), ("static", "sampled once as bits")])
def test_grey_levels_that_become_bits_are_said(how: str | None, words: str, npz: Write, run: Callable) -> None:
    document, said = run(npz(UNIT), prior="bernoulli", **({} if how is None else {"binarization": how}))
    assert words in document["prepared"]
    assert document["prepared"] in said
    assert set(Run.open("run").split("test").unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("bad", ["spins", "reals", "beyond", "nan"])
def test_what_is_no_grey_level_is_refused_by_bernoulli(bad: str, npz: Write, cli: Cli) -> None:
    x = {"spins": np.sign(UNIT - 0.5), "reals": UNIT - 0.5, "beyond": 2 * UNIT, "nan": UNIT.copy()}[bad]
    if bad == "nan":
        x[-1, -1] = math.nan
    refused(cli("run", "--data", npz(x)), "NaN" if bad == "nan" else "no grey levels")


def test_splits_from_python_are_checked_all_alike() -> None:
    x = torch.rand(10, 3)
    splits = Splits(x, x, x + 1)
    assert describe(splits.support) == "reals"
    with pytest.raises(UsageError, match="reals, which are no grey levels"):
        binarize(splits, "threshold")


GREY = RNG(1).random((200, 6)) * 0.3 + 0.6 * (RNG(2).random((200, 1)) < 0.5)


def test_train_nll_under_dynamic_binarization_is_of_bits(npz: Write, run: Callable) -> None:
    document, _ = run(npz(GREY), prior="bernoulli", binarization="dynamic", num_particles=200, epochs=3)
    opened = Run.open("run")
    x = opened.split("train")
    assert set(x.unique().tolist()) == {0.0, 1.0}
    # Their rates are the grey levels they were sampled from.
    assert x.mean().item() == pytest.approx(GREY[:120].mean(), abs=0.1)
    assert document["train_nll"] == pytest.approx(opened.evaluate("train", limit=40).nll)
    every = [sample_bits(opened.splits.train) for _ in range(5)]
    assert all(set(part.unique().tolist()) == {0.0, 1.0} for part in every)


@pytest.mark.parametrize(
    "words",
    [
        {"model": "identity", "estimator": "cd"},
        {"model": "identity", "estimator": "cd", "estimator__chain": "persistent"},
        {"model": "denoising", "prior": "convolved", "estimator": "dae"},
        {"model": "denoising", "prior": "convolved", "estimator": "dae", "estimator__information": "exact"},
        {"model": "sbn", "model__sizes": "4,3"},
        {"estimator": "rws"},
    ],
    ids=lambda words: "-".join(words.values()),
)
@pytest.mark.parametrize("levels", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_grey_data_train_and_are_looked_at_under_dynamic_binarization(
    words: dict, levels: bool, npz: Write, run: Callable, cli: Cli
) -> None:
    x = (GREY * 255).astype(np.uint8) if levels else GREY
    few = {} if words.get("prior") == "convolved" else {"partition__num_temperatures": 5, "partition__num_chains": 4}
    path = npz(x, levels=np.array(256)) if levels else npz(x)
    document, said = run(path, binarization="dynamic", **words, **few)
    assert "sampled as bits in each batch" in document["prepared"]
    assert document["prepared"] in said
    assert document["nll"] > 0
    assert document["train_nll"] > 0
    looks = (
        "evaluate run --split train --num-particles 2",
        "diagnose run --split train --num-particles 4 --count 5 --probe-steps 9",
        "sample run --count 4",
    )
    for look in looks:
        result = cli(*look.split())
        assert result.code == 0, (look, result.err)
    few_words = "--num-particles 2 --num-chains 4 --temperatures 5 --raise-cases 0 --posterior draws"
    certified = cli("certify", "run", *few_words.split())
    assert certified.code in (0, 1), certified.err  # refused, perhaps, but for no reason of the data
    assert "over bits" not in certified.err
