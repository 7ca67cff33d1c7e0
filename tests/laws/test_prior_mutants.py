"""Wrong priors, likelihoods and partition estimators fail their exams by the right law."""

import math
from typing import Literal

import attrs
import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from unibound import EnergyPrior, Likelihood, LogZ, NormalizedPrior, PartitionEstimator, ScaledPrior
from unibound.distributions import Bits
from unibound.support import boolean
from unibound.testing import examine_likelihood, examine_partition_estimator, examine_prior
from unibound.testing.listing import number
from unibound.testing.priors import Rates, Table
from unibound.weights import log_mean_exp


class NoNegativePhase(Table):
    def log_prob(self, tau: Tensor) -> Tensor:
        return -self.free_energy(tau)


class NegativePhaseTwice(Table):
    def negative_phase(self) -> Tensor:
        return 2 * super().negative_phase()


class HeatedGibbs(Table):
    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        return super().gibbs(tau, steps, 0.6 * beta)


class FrozenGibbs(Table):
    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        return tau.clone()


class ForgottenUnits(Table):
    def base_log_z(self) -> float:
        return super().base_log_z() - 2 * math.log(2)


class WeighedAfterMoving(Table):
    def anneal(self, tau: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        log_w = torch.zeros(len(tau), dtype=torch.float64)
        for a, b in zip(betas.tolist(), betas[1:].tolist(), strict=False):
            tau = self.gibbs(tau, 1, b)
            log_w += self.free_energy(tau, a).detach() - self.free_energy(tau, b).detach()
        return tau, log_w


class ChainsLeftBehind(Table):
    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape)
        self.register_buffer("chains", self.chains, persistent=False)


class Unnormalized(Rates):
    def log_prob(self, tau: Tensor) -> Tensor:
        return (tau * self.logits).flatten(-len(self.event_shape)).sum(-1)


class WrongDraws(Rates):
    def sample(self, count: int) -> Tensor:
        return 1 - super().sample(count)


class WrongTransitions(Table):
    def log_transition(self, states: Tensor) -> Tensor:
        return super().log_transition(states).T


class Backwards(Table):
    def enumeration(self):
        states = super().enumeration()
        return attrs.evolve(states, log_f=lambda bits: self.energies[number(bits)])


@pytest.mark.parametrize(
    ("prior", "law"),
    [
        (NoNegativePhase, "gradient_is_that_of_log_p"),
        (NegativePhaseTwice, "gradient_is_that_of_log_p"),
        (HeatedGibbs, "moves_leave_p_beta_invariant"),
        (FrozenGibbs, "moves_leave_p_beta_invariant"),
        (ForgottenUnits, "base_is_known"),
        (WeighedAfterMoving, "annealed_weight_is_a_ratio_of_z"),
        (ChainsLeftBehind, "chains_advance"),
        (Unnormalized, "normalized"),
        (WrongDraws, "draws_follow_the_prior"),
        (WrongTransitions, "transitions_are_what_gibbs_does"),
        (Backwards, "enumeration_sums_to_z"),
    ],
)
def test_wrong_prior_dies(prior: type, law: str) -> None:
    assert law in {verdict.law for verdict in examine_prior(prior) if not verdict.held}


def annealed(prior: EnergyPrior, num_chains: int, num_temperatures: int) -> Tensor:
    betas = torch.linspace(0, 1, num_temperatures + 1, dtype=torch.float64)
    return prior.anneal(prior.base_sample(num_chains), betas)[1] + prior.base_log_z()


@attrs.frozen
class Annealing(PartitionEstimator):
    """Annealed importance sampling, right by default and wrong by choice."""

    num_chains: int = 100
    num_temperatures: int = 100
    side: Literal["equal", "lower", "upper"] = "lower"
    error: float = 1.0
    shift: float = 0.0

    def fit(self, prior: EnergyPrior) -> NormalizedPrior:
        log_w = annealed(prior, self.num_chains, self.num_temperatures)
        value = log_mean_exp(log_w.unsqueeze(1)).item() + self.shift
        stderr = self.error * (log_w - value).exp().std().item() / math.sqrt(self.num_chains)
        return ScaledPrior(prior, LogZ(value, stderr, self.side))


def test_annealing_passes() -> None:
    assert [verdict for verdict in examine_partition_estimator(Annealing) if not verdict.held] == []


@pytest.mark.parametrize(
    ("settings", "law"),
    [
        ({"side": "equal"}, "log_z_is_within_its_error"),
        ({"side": "upper"}, "side_is_honest"),
        ({"error": 0.2}, "error_bar_is_honest"),
        ({"error": 5.0}, "error_bar_is_honest"),
        ({"shift": math.log(2)}, "log_z_is_within_its_error"),
    ],
)
def test_wrong_partition_estimator_dies(settings: dict, law: str) -> None:
    failed = {verdict.law for verdict in examine_partition_estimator(Annealing(**settings)) if not verdict.held}
    assert law in failed


class HalfBits(Bits):
    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) / 2


@attrs.frozen
class Half(Likelihood):
    support = boolean

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        return HalfBits(outputs, len(event_shape))


def test_wrong_likelihood_dies() -> None:
    assert "sums_to_one" in {verdict.law for verdict in examine_likelihood(Half) if not verdict.held}
