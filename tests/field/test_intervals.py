"""What an interval takes for granted is said, and what is known of a model is used."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from unibound import Directed, Generator, Inference, JointBound, Prior, Run, registries
from unibound.distributions import Bits
from unibound.evaluation.certify import certify_joint
from unibound.evaluation.conclusion import Evaluation
from unibound.evaluation.evaluate import evaluate
from unibound.evaluation.reach import Reach
from unibound.support import real

REACH = "reach the posteriors of these data as they do those of the model's own"


class One(Inference):
    """Always tau = 1, whatever x."""

    def forward(self, x: Tensor) -> Distribution:
        return Bits(torch.full((*x.shape[:-1], 1), 20.0))


class Fair(Generator):
    """Fair bits, whatever tau."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.size = size

    def forward(self, tau: Tensor) -> Distribution:
        return Bits(torch.zeros(*tau.shape[:-1], self.size))


def coin() -> Prior:
    return registries()["prior"]["bernoulli"]((1,))


def test_a_mode_that_q_misses_is_found(bits: Tensor) -> None:
    x = bits[:, :3]
    found = evaluate(JointBound(One(), Directed(coin(), Fair())), x, num_particles=500)
    assert found.nll == pytest.approx(4 * math.log(2), abs=1e-3)  # right is 3 log 2; half of the latents are missed
    assert found.gap == pytest.approx(0, abs=1e-4)
    assert found.interval.low is not None
    assert found.interval.high is not None
    assert found.interval.low <= 3 * math.log(2) <= found.interval.high
    assert REACH in found.conclusion
    for posterior in ("draws", "ais"):
        joint = JointBound(One(), Directed(coin(), Fair()))
        certificate = certify_joint(joint, x, x, num_particles=500, posterior=posterior)
        assert certificate.test_ll_low < -3 * math.log(2) <= certificate.test_ll_high < -2.9 * math.log(2)
        assert any(REACH in one for one in certificate.reasons)


def test_so_it_is_where_the_prior_keeps_latents_of_its_own(bits: Tensor) -> None:
    x, coupling = bits[:, :4], 6.0
    prior: Any = registries()["prior"]["dbm"]((4,), hidden=(3, 3))
    with torch.no_grad():  # hidden units are all on or all off, alike; mean field settles at one of the two
        prior.weights[1].fill_(coupling)
        for bias in prior.biases[1:]:
            bias.fill_(0.05 - 1.5 * coupling)
        states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 7)
        log_f = -prior.free_energy(states).double()  # of v and the second hidden layer
    rows = [states[:, :4] == one for one in x]
    log_p = torch.stack([log_f[row.all(1)].logsumexp(0) for row in rows]) - log_f.logsumexp(0)
    bernoulli = registries()["likelihood"]["bernoulli"]()
    joint = registries()["model"]["identity"]().build(prior, bernoulli, bernoulli, torch.full((4,), 0.5))
    exact = registries()["partition_estimator"]["exact"]().fit(prior)
    found = evaluate(joint, x, num_particles=300, normalized=exact)
    assert found.nll + log_p.mean().item() > 0.4  # about half of the posterior is missed
    assert found.interval.low is not None
    assert -log_p.mean().item() in found.interval
    assert isinstance(found.reach, Reach)
    assert "even values of what q leaves open" in found.conclusion
    assert found.reach.found[found.reach.by] == pytest.approx(log_p.mean().item() + exact.log_z.value, abs=0.1)


class Narrow(Inference):
    """A normal about the right one of two modes."""

    def forward(self, x: Tensor) -> Distribution:
        return Independent(Normal(torch.full((*x.shape[:-1], 1), 3.0), 0.2), 1)


class Even(Generator):
    """Data normal about the square of tau, so that tau and -tau explain them alike."""

    def forward(self, tau: Tensor) -> Distribution:
        return Independent(Normal(tau.square(), 0.5), 1)


def test_so_it_is_over_reals() -> None:
    prior = registries()["prior"]["gaussian"]((1,))
    x = 9 + 0.5 * torch.randn(200, 1)
    joint = JointBound(Narrow(), Directed(prior, Even()))
    grid = torch.linspace(-8, 8, 4001).view(-1, 1, 1)
    log_p = joint.p.log_joint(x, grid.expand(-1, len(x), 1)).double()
    exact = -(log_p.logsumexp(0) + math.log(16 / 4000)).mean().item()
    found = evaluate(joint, x, num_particles=2000)
    assert found.nll - exact == pytest.approx(math.log(2), abs=0.1)
    assert found.interval.low is not None
    assert exact in found.interval
    assert REACH in found.conclusion


@pytest.mark.parametrize("latents", [2, 4])
def test_so_it_is_for_every_trained_run(latents: int, npz: Callable[..., Path], run: Callable, bits: Tensor) -> None:
    document, _ = run(npz(bits.numpy()), prior="bernoulli", model__num_latents=latents, num_particles=500, epochs=3)
    assert document["nll_low"] is not None
    assert REACH in document["conclusion"]


@pytest.mark.parametrize("particles", [1, 7])
@pytest.mark.parametrize("estimator", ["cd", "iwae"])
def test_where_the_latent_is_the_datum_one_particle_gives_two_ends(
    particles: int, estimator: str, npz: Callable[..., Path], run: Callable, bits: Tensor
) -> None:
    words = {"model": "identity", "prior__num_hidden": 4, "partition": "exact", "estimator": estimator, "epochs": 4}
    document, _ = run(npz(bits.numpy()), num_particles=particles, **words)
    opened = Run.open("run")
    prior: Any = opened.joint.p.get_submodule("prior")
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 6)
    with torch.no_grad():
        log_z = (-prior.free_energy(states)).double().logsumexp(0)
        exact = (prior.free_energy(opened.split("test")).double() + log_z).mean().item()
    assert document["nll"] == pytest.approx(exact, abs=1e-4)
    assert document["nll_side"] == "equal"
    assert document["nll_low"] < exact < document["nll_high"]
    assert "given" not in document["conclusion"]


def test_so_it_does_over_reals(npz: Callable[..., Path], run: Callable) -> None:
    x = np.random.default_rng(0).normal(size=(100, 2))
    words = {"model": "identity", "prior": "gaussian", "prior__covariance": "diagonal", "estimator": "iwae"}
    document, _ = run(npz(x), num_particles=1, **words)
    assert document["nll_side"] == "equal"
    assert document["nll_low"] < document["nll"] < document["nll_high"]


def test_no_end_is_below_zero_where_masses_are_meant(npz: Callable[..., Path], run: Callable) -> None:
    x = np.ones((1000, 3), np.uint8)
    x[0] = 0
    x[-1] = 0  # the model is all but certain of its data, and they vary
    words = {"model": "identity", "prior": "bernoulli", "estimator": "iwae", "optimizer__learning_rate": 0.3}
    document, _ = run(npz(x), num_particles=1, epochs=40, **words)
    assert 0 <= document["nll_low"] < 0.05
    assert document["nll"] < 0.2


@pytest.mark.parametrize("gap", [0.0, 0.3])
def test_a_density_has_no_floor_and_a_mass_has(gap: float) -> None:
    about = {"bits_per_dim": 0.0, "side": "upper", "ess": 9.0, "num_particles": 10, "log_z": None, "seconds": 0.0}
    about["reach"] = Reach("draws", {}, 0.0, 0.0, gap=gap / 2, slack=0.0, slack_stderr=0.0, cases=(9, 9))
    mass, density = (Evaluation(0.02, 0.05, gap=gap, mass=mass, **about) for mass in (True, False))
    assert mass.interval.low == 0.0
    assert density.interval.low == pytest.approx(0.02 - gap - 1.96 * 0.05, abs=1e-4)
    assert mass.interval.high == density.interval.high


def test_an_nll_that_no_masses_have_is_no_claim() -> None:
    about = {"bits_per_dim": 0.0, "side": "upper", "ess": 9.0, "num_particles": 10, "log_z": None, "seconds": 0.0}
    found = Evaluation(-3.0, 0.05, gap=0.0, mass=True, **about)
    assert "impossible for probabilities" in found.conclusion
    assert found.interval.high is None


def test_a_joint_that_says_nothing_of_its_support_has_no_floor() -> None:
    class Silent(Narrow):
        def forward(self, x: Tensor) -> Distribution:
            return Independent(Normal(torch.zeros(*x.shape[:-1], 1), 1.0), 1)

    class Spike(Generator):
        def forward(self, tau: Tensor) -> Distribution:
            return Independent(Normal(0 * tau, 1e-3), 1)

    class Bell(Prior):
        support = real

        def log_prob(self, tau: Tensor) -> Tensor:
            return Normal(0.0, 1.0).log_prob(tau).sum(-1)

        def sample(self, count: int) -> Tensor:
            return torch.randn(count, 1)

    found = evaluate(JointBound(Silent(), Directed(Bell((1,)), Spike())), 1e-3 * torch.randn(50, 1), num_particles=10)
    assert found.nll < 0
    assert found.interval.low is not None
    assert found.interval.low < 0
