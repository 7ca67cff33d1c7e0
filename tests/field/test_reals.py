"""Energies over reals: nothing is listed, what is annealed comes out right, and a support that lies is found out."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from unibound import Directed, EnergyPrior, Generator, Inference, JointBound, UsageError, registries
from unibound.evaluation.certify import certify_joint
from unibound.evaluation.evaluate import evaluate, evaluate_all, normalize
from unibound.support import boolean, real
from unibound.testing import examine_prior
from unibound.testing.priors import Spins, Table, Well

LOG_Z = 1.40877  # of F below, by quadrature


class DoubleWell(EnergyPrior):
    """F(x) = x^4 / 4 - x^2 / 2 + 0.3 x, annealed from a standard normal."""

    support = real

    def __init__(self, event_shape: tuple[int, ...] = (1,), *, num_chains: int = 20) -> None:
        super().__init__(torch.randn(num_chains, *event_shape), 5)

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        own = tau**4 / 4 - tau.square() / 2 + 0.3 * tau
        return (beta * own + (1 - beta) * tau.square() / 2).sum(-1)

    @torch.no_grad()
    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        for _ in range(4 * steps):
            proposed = tau + 1.5 * torch.randn_like(tau)
            log_ratio = self.free_energy(tau, beta) - self.free_energy(proposed, beta)
            tau = torch.where((torch.rand_like(log_ratio).log() < log_ratio).unsqueeze(-1), proposed, tau)
        return tau

    def base_sample(self, count: int) -> Tensor:
        return torch.randn(count, *self.event_shape)

    def base_log_z(self) -> float:
        return self.event_shape.numel() * math.log(2 * math.pi) / 2

    def fit_base(self, tau: Tensor) -> None:
        pass


GRID = torch.linspace(-8, 8, 16_001).double().unsqueeze(1)


def quadrature(prior: EnergyPrior) -> float:
    """log Z of an energy over one real."""
    with torch.no_grad():
        free = prior.free_energy(GRID.to(prior.chains)).double()
    return (-free).logsumexp(0).item() + math.log(16 / 16_000)


PRIORS = {"double well": DoubleWell, "well": lambda: Well((1,), num_chains=20)}


def test_the_double_well_is_the_one_that_is_known() -> None:
    assert quadrature(DoubleWell()) == pytest.approx(LOG_Z, abs=1e-5)


@pytest.mark.parametrize("name", PRIORS)
def test_exact_refuses_what_cannot_be_listed(name: str) -> None:
    prior, exact = PRIORS[name](), registries()["partition_estimator"]["exact"]()
    assert prior.enumeration() is None
    for ask in (exact.check, exact.fit):
        with pytest.raises(UsageError, match=f"exact lists states, but {type(prior).__name__} is over reals"):
            ask(prior)


@pytest.mark.parametrize("name", PRIORS)
def test_ais_lands_within_its_error(name: str) -> None:
    prior = PRIORS[name]()
    log_z = registries()["partition_estimator"]["ais"](num_chains=2000, num_temperatures=60).fit(prior).log_z
    assert log_z.side == "lower"
    assert log_z.trustworthy
    assert log_z.stderr < 0.1
    assert log_z.value == pytest.approx(quadrature(prior), abs=5 * log_z.stderr)


@pytest.mark.parametrize("name", PRIORS)
def test_bdmc_claims_no_exact_start(name: str) -> None:
    prior = PRIORS[name]()
    log_z = registries()["partition_estimator"]["bdmc"](num_chains=1000, num_temperatures=60).fit(prior).log_z
    assert log_z.heuristic
    assert not log_z.lower.heuristic
    assert log_z.lower.value == pytest.approx(quadrature(prior), abs=5 * log_z.lower.stderr)
    assert log_z.upper.value == pytest.approx(quadrature(prior), abs=5 * log_z.upper.stderr)


class Normals(Inference):
    def forward(self, x: Tensor) -> Distribution:
        return Independent(Normal(x, 0.7), 1)


class Around(Generator):
    def forward(self, tau: Tensor) -> Distribution:
        return Independent(Normal(tau, 0.5), 1)


def test_evaluation_by_itself_normalizes_and_says_on_what_it_rests() -> None:
    prior, x = DoubleWell(), torch.randn(100, 1)
    joint = JointBound(Normals(), Directed(prior, Around()))
    with torch.no_grad():
        log_prior = -prior.free_energy(GRID.float()).double() - quadrature(prior)  # [S]
        log_x = Normal(GRID.float(), 0.5).log_prob(x.T).double()  # [S, N]
        exact = -((log_prior.unsqueeze(1) + log_x).logsumexp(0) + math.log(16 / 16_000)).mean().item()
    found = evaluate(joint, x, num_particles=1000)
    assert found.log_z is not None
    assert found.nll == pytest.approx(exact, abs=0.1)
    assert exact in found.interval
    assert "Gibbs run behind the upper side of log Z" in found.conclusion
    with pytest.raises(UsageError, match=f"{type(prior).__name__} lacks its log Z"):
        evaluate_all(joint, x, [None], num_particles=2)


def test_the_energy_itself_is_a_model_of_reals() -> None:
    known = registries()
    plain, x = known["likelihood"]["gaussian"](), torch.randn(100, 1)
    joint = known["model"]["identity"]().build(DoubleWell(), plain, plain, x.mean(0))
    exact = DoubleWell().free_energy(x).double().mean().item() + LOG_Z
    quick = known["partition_estimator"]["bdmc"](num_chains=1000, num_temperatures=60)
    found = evaluate(joint, x, num_particles=1, normalized=normalize(joint, quick, x))
    assert found.nll == pytest.approx(exact, abs=0.1)
    assert exact in found.interval
    certificate = certify_joint(joint, x, x, num_chains=200, temperatures=60, raise_cases=10)
    assert certificate.log_z == pytest.approx(LOG_Z, abs=0.2)
    assert exact in -certificate.test_ll_interval


class SaysBits(Well):
    """Reals that are said to be bits, so that they would be listed."""

    support = boolean


class WholeNumbers(Well):
    """Whole numbers that are said to be reals."""

    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        return super().gibbs(tau, steps, beta).round()


class BitsForSpins(Spins):
    """Its base distribution draws bits, where it says that it is over spins."""

    def base_sample(self, count: int) -> Tensor:
        return (super().base_sample(count) + 1) / 2


class SpinsForBits(Table):
    """Its moves end in spins, where it says that it is over bits."""

    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        return 2 * super().gibbs(tau, steps, beta) - 1


@pytest.mark.parametrize(
    ("prior", "law"),
    [
        (SaysBits, "support_is_true"),
        (WholeNumbers, "moves_leave_p_beta_invariant"),
        (BitsForSpins, "support_is_true"),
        (SpinsForBits, "support_is_true"),
    ],
)
def test_an_energy_that_lies_about_its_support_fails_the_exam(prior: Callable, law: str) -> None:
    assert law in {verdict.law for verdict in examine_prior(prior) if not verdict.held}


def test_an_honest_one_passes() -> None:
    assert [verdict for verdict in examine_prior(Well) if not verdict.held] == []


def test_a_lie_is_caught_by_whoever_draws_from_it() -> None:
    joint = JointBound(Normals(), Directed(SaysBits((1,)), Around()))
    with pytest.raises(UsageError, match="over reals, but the prior is over bits"):
        joint.particles(torch.randn(5, 1), 2)
