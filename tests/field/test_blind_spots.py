"""Phases that no datum is in, chains of which one carries everything: what is certified holds, or nothing is."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from running import Cli
from scipy.special import gammaln, logsumexp
from torch import Tensor

from unibound import Directed, Inference, JointBound, LogZ, Sandwich, registries
from unibound.claim import Interval, Side
from unibound.distributions import Bits
from unibound.evaluation.certify import Certificate, certify, certify_joint
from unibound.networks import Generator
from unibound.partition import annealing

COUPLED, HIDDEN, FREE, WEIGHT, BIAS = 48, 32, 16, 0.18, 3.0


def two_phases(tilt: float) -> tuple[dict[str, np.ndarray], np.ndarray, float, float]:
    """All weights into a hidden unit are equal, so log Z is a sum over how many units are on. Data of the upper phase.

    Returns:
        The weights, 400 data, log Z, and the mean log-likelihood of the data.
    """
    b, c, k = -WEIGHT * HIDDEN / 2 + tilt, -WEIGHT * COUPLED / 2, np.arange(COUPLED + 1)
    log_f = gammaln(COUPLED + 1) - gammaln(k + 1) - gammaln(COUPLED - k + 1) + b * k
    log_f = log_f + HIDDEN * np.logaddexp(0, c + WEIGHT * k)
    log_z = logsumexp(log_f) + FREE * np.logaddexp(0, BIAS)
    random, upper = np.random.default_rng(0), np.where(k > COUPLED / 2, np.exp(log_f - logsumexp(log_f)), 0)
    on, x = random.choice(k, 400, p=upper / upper.sum()), np.zeros((400, COUPLED + FREE), np.uint8)
    for row, count in zip(x, on, strict=True):
        row[random.choice(COUPLED, count, replace=False)] = 1
    x[:, COUPLED:] = random.random((400, FREE)) < 1 / (1 + np.exp(-BIAS))
    weights = {
        "W": np.zeros((COUPLED + FREE, HIDDEN)),
        "vbias": np.full(COUPLED + FREE, b),
        "hbias": np.full(HIDDEN, c),
    }
    weights["W"][:COUPLED], weights["vbias"][COUPLED:] = WEIGHT, BIAS
    ll = b * on + HIDDEN * np.logaddexp(0, c + WEIGHT * on) + BIAS * x[:, COUPLED:].sum(1) - log_z
    return weights, x, float(log_z), float(ll.mean())


@pytest.mark.parametrize("base", ["data", "uniform"])
@pytest.mark.parametrize("tilt", [-0.03, 0.0, 0.02])
def test_a_phase_that_the_data_are_not_in(tilt: float, base: str, cli: Cli) -> None:
    weights, x, log_z, ll = two_phases(tilt)
    np.savez("phases.npz", **weights)  # pyright: ignore[reportArgumentType]
    np.savez("x.npz", test=x)
    words = ("--temperatures", 1000, "--raise-cases", 0, "--base", base, "--json")
    found = json.loads(cli("certify", "--rbm", "phases.npz", "--data", "x.npz", *words).out)
    rows = {row["name"]: row for row in found["evidence"]}
    lows = [row["value"] - 1.96 * row["stderr"] for row in rows.values() if row["of"] == "log Z" and row["stderr"]]
    assert len(lows) >= 4
    assert max(lows) < log_z + 0.2
    assert "use --base" not in " ".join(found["reasons"])
    if found["verdict"] == "certified":
        assert found["log_z_low"] < log_z < found["log_z_high"]
        assert found["test_ll_low"] < ll < found["test_ll_high"]
        # No row that errs high lies below one that errs low.
        highs = [row["value"] + 4 * (row["stderr"] or 0) for row in rows.values() if row["side"] == "upper"]
        assert max(lows) < min(highs)


def is_wrong(found: Certificate, log_z: float) -> bool:
    """Whether a certificate was given whose interval does not hold the exact value."""
    assert found.log_z_interval is not None
    return found.verdict == "certified" and log_z not in found.log_z_interval


class Aligned(Inference):
    """Codes of all bits on, whatever x."""

    def forward(self, x: Tensor) -> torch.distributions.Distribution:
        return Bits(torch.full((*x.shape[:-1], COUPLED + FREE), 4.0))


class Coin(Generator):
    """Three fair bits, whatever tau."""

    def forward(self, tau: Tensor) -> torch.distributions.Distribution:
        return Bits(torch.zeros(*tau.shape[:-1], 3))


@pytest.mark.slow
def test_a_mode_of_a_prior_that_no_code_visits() -> None:
    weights, _, log_z, _ = two_phases(-0.03)
    kind = registries()["prior"]["rbm"]
    prior = kind.from_weights(*(torch.from_numpy(weights[name]) for name in ("W", "vbias", "hbias")))
    joint, x = JointBound(Aligned(), Directed(prior, Coin())), torch.randint(2, (50, 3)).float()
    found = certify_joint(joint, x, x, num_particles=50, temperatures=1000, raise_cases=0)
    assert not is_wrong(found, log_z)


def hidden_by_a_desert(far: float) -> tuple[torch.nn.Module, Tensor, float]:
    """A mode around all bits on, of so much more mass than that of all off, from which no chain comes there."""
    visible, hidden = 14, 22
    weight = torch.full((visible, hidden), 1.5)
    prior = registries()["prior"]["rbm"].from_weights(weight, -weight.sum(1) / 2 + far / visible, -weight.sum(0) / 2)
    states = (torch.arange(2**visible).unsqueeze(1) >> torch.arange(visible) & 1).float()
    return prior, torch.zeros(100, visible), (-prior.free_energy(states)).double().logsumexp(0).item()


@pytest.mark.parametrize("far", [-1.0, 0.0, 2.0])
def test_a_mode_beyond_a_desert(far: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annealing, "MAX_BITS", 0)
    prior, x, log_z = hidden_by_a_desert(far)
    found = certify(prior, x, temperatures=300, raise_cases=0, image=(14,))  # pyright: ignore[reportArgumentType]
    assert not is_wrong(found, log_z)


@pytest.mark.parametrize("count", [2, 5, 10, 20, 100])
def test_one_chain_that_carries_everything_has_no_bar(count: int) -> None:
    prior = registries()["prior"]["rbm"]((4,), num_hidden=3)
    log_w = torch.zeros(count, dtype=torch.float64)
    log_w[0] = 1000.0
    for one in (annealing.lower_bound(prior, log_w), annealing.upper_bound(prior, -log_w, heuristic=False)):
        assert one.ess == pytest.approx(1.0 if one.side is Side.LOWER else count - 1, abs=1e-6)
        if one.side is Side.LOWER:
            assert one.stderr == math.inf
            assert one.interval == Interval(None, None)
            assert not one.trustworthy
            both = Sandwich(one, LogZ(one.value, 0.1, Side.UPPER, ess=50.0, num_chains=50))
            assert both.interval.low is None
            assert math.isfinite(both.middle)
            assert not both.trustworthy


@pytest.mark.parametrize(
    ("ess", "chains", "sure"), [(4.9, 20, False), (5.1, 20, True), (4.0, 4, False), (1.9, 2, False)]
)
def test_an_absolute_number_of_chains_must_carry_it(ess: float, chains: int, sure: bool) -> None:
    assert LogZ(3.0, 0.1, Side.LOWER, ess=ess, num_chains=chains).trustworthy is sure


def test_the_shift_of_a_side_is_added_to_the_end_it_concerns() -> None:
    low, high = (LogZ(0.0, 0.8, side, ess=40.0, num_chains=1000).interval for side in (Side.LOWER, Side.UPPER))
    assert low.low is not None
    assert low.high is not None
    assert low.high == pytest.approx(-low.low + 0.32)
    assert (high.low, high.high) == (-low.high, -low.low)


def test_what_no_chain_met_widens_the_end_that_is_proved() -> None:
    sure = LogZ(0.0, 0.0, Side.LOWER, ess=100.0, num_chains=100).interval
    assert (sure.low, sure.high) == (pytest.approx(math.log(0.97)), 0.0)
    assert LogZ(0.0).interval == Interval(0.0, 0.0)


@pytest.mark.parametrize("chains", [1, 2, 3, 10])
def test_few_chains_end_in_json_and_no_claim_of_more_than_certainty(
    chains: int, cli: Cli, npz: Callable[..., Path], bits: Tensor
) -> None:
    random = np.random.default_rng(0)
    np.savez("wild.npz", W=8 * random.normal(size=(6, 4)), vbias=9 * random.normal(size=6), hbias=random.normal(size=4))
    words = ("--rbm", "wild.npz", "--data", npz(bits.numpy()), "--temperatures", 2, "--raise-cases", 0)
    result = cli("certify", *words, "--num-chains", chains, "--json")

    def strict(word: str) -> float:
        raise AssertionError(f"{word} is no JSON")

    found = json.loads(result.out, parse_constant=strict)
    if found["verdict"] == "certified":
        assert chains == 10
        assert found["test_ll_high"] <= 0
    else:
        assert result.code == 1
        assert found["test_ll"] is found["test_ll_low"] is found["test_ll_high"] is None
