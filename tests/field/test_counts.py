"""A likelihood of a stranger's over counts trains on counts and is evaluated, whatever type keeps them."""

from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from running import Cli, refused
from scipy.special import gammaln
from torch import Tensor
from torch.distributions import Distribution, Independent, Poisson
from torch.nn.functional import softplus

from unibound import Likelihood, Run, UsageError, registries
from unibound.support import nonnegative_integer
from unibound.testing import examine_likelihood


@attrs.frozen
class Counts(Likelihood):
    """Every element is a Poisson count, and the network's output its rate before a softplus."""

    support = nonnegative_integer

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        return Independent(
            Poisson(softplus(outputs) + 1e-6, validate_args=False), len(event_shape), validate_args=False
        )


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin of a distribution of its own, for one test."""
    registry = registries()["likelihood"]
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    monkeypatch.setattr(registry, "_owners", dict(registry._owners))
    registry.add("counts", Counts, "a stranger")


RNG = np.random.default_rng(0)
RATES = np.array([0.5, 2.0, 4.0, 9.0])
X = RNG.poisson(RATES, (500, 4))
WORDS = {"likelihood": "counts", "prior": "gaussian", "estimator": "iwae", "model__num_latents": 2}


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float32])
def test_counts_train_and_are_evaluated(dtype: type, npz: Callable[..., Path], run: Callable) -> None:
    learn = {"epochs": 40, "optimizer__learning_rate": 0.03, "num_particles": 100, "model__hidden": "16"}
    document, _ = run(npz(X.astype(dtype)), **WORDS, **learn)
    assert document["prepared"] == ""
    assert np.array_equal(Run.open("run").split("test").numpy(), X[400:])
    rates = X[:300].mean(0)
    right = (rates - X[400:] * np.log(rates) + gammaln(X[400:] + 1)).sum(1).mean()
    assert document["nll"] == pytest.approx(right, abs=0.5)  # independent counts have nothing for a latent to say
    assert document["nll_low"] >= 0
    assert "nats" in document["conclusion"]


def test_bytes_that_reach_high_are_counts_too(npz: Callable[..., Path], run: Callable) -> None:
    x = RNG.poisson([1.0, 90.0, 160.0], (100, 3)).clip(0, 255).astype(np.uint8)
    document, _ = run(npz(x), **WORDS)
    assert document["prepared"] == ""
    assert np.array_equal(Run.open("run").split("train").numpy(), x[:60])


def test_looks_at_a_run_of_counts_go_well(npz: Callable[..., Path], run: Callable, cli: Cli) -> None:
    run(npz(X), **WORDS)
    looks = (
        "evaluate run --split train",
        "diagnose run --count 20 --num-particles 4 --probe-steps 9",
        "sample run --count 4",
        "report run",
    )
    for look in looks:
        result = cli(*look.split())
        assert result.code == 0, (look, result.err)


@pytest.mark.parametrize(
    ("x", "part"),
    [
        (X - 3, "-"),
        (X + 0.5, ".5; choose a likelihood"),
        (np.where(X > 3, np.nan, X), "NaN"),
        (RNG.random((100, 4)), "over counts"),
    ],
    ids=["negative", "halves", "nan", "grey"],
)
def test_what_are_no_counts_are_refused(x: np.ndarray, part: str, npz: Callable[..., Path], cli: Cli) -> None:
    words = "run --likelihood counts --prior gaussian --estimator iwae --data"
    refused(cli(*words.split(), npz(x)), part)


def test_binarization_of_counts_is_refused(npz: Callable[..., Path], cli: Cli) -> None:
    words = "run --likelihood counts --prior gaussian --estimator iwae --binarization threshold --data"
    refused(cli(*words.split(), npz(X)), "binarization threshold makes bits, but likelihood counts is over counts")


def test_bits_are_counts(npz: Callable[..., Path], run: Callable) -> None:
    document, _ = run(npz(X > 2), **WORDS)
    assert document["prepared"] == ""
    assert document["nll"] > 0


def test_from_python_other_values_are_refused(mlp: Callable) -> None:
    x = torch.from_numpy(X).float()
    joint = mlp(x, "bernoulli", "counts")
    assert joint.particles(x, 2).log_p.isfinite().all()
    with pytest.raises(UsageError, match=r"p\(x \| tau\) is over counts, but the data hold -1"):
        joint.particles(x.masked_fill(x == 0, -1.0), 2)


def test_it_sits_the_exam() -> None:
    assert [verdict for verdict in examine_likelihood(Counts) if not verdict.held] == []
