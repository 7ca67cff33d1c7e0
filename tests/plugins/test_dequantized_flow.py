"""Noise that flows: a bound by an exact p(x) of levels, draws that are scored as they are made, and mutants."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent
from unibound_plugins.estimators.iwae import IWAE
from unibound_plugins.estimators.sgvb import SGVB
from unibound_plugins.likelihoods.bernoulli import Bernoulli as BernoulliLikelihood
from unibound_plugins.likelihoods.gaussian import Gaussian as GaussianLikelihood
from unibound_plugins.likelihoods.logistic import Logistic as LogisticLikelihood
from unibound_plugins.models import dequantized
from unibound_plugins.models.dequantized import Dequantized
from unibound_plugins.priors.gaussian import Gaussian

from unibound import JointBound, Likelihood
from unibound.distributions import Logistic, flows
from unibound.draws import draw
from unibound.support import levels, real
from unibound.testing.listing import all_states, scatter
from unibound.weights import log_mean_exp

pytest.importorskip("zuko")
COUNT, PAIR = 4, (2, 1)


def built(kind: flows.Kind = "coupling") -> JointBound:
    """Two elements of four levels under normals that hang together; noise with tails as wide as even noise has."""
    torch.manual_seed(0)
    model = Dequantized(COUNT, "flow", (5,), kind, 2, (4,), 3)
    prior, mean = Gaussian(PAIR, covariance="full"), torch.full(PAIR, 0.4)
    joint = scatter(model.build(prior, BernoulliLikelihood(), LogisticLikelihood(min_scale=0.6), mean).double(), 1, 0.3)
    with torch.no_grad():
        prior.below_diagonal[1, 0] = 1.2
    return joint


def exact(prior: Gaussian) -> Tensor:
    """log p of each pair of levels, by the mass of a normal over a rectangle."""
    edges = [-40.0, *(math.log(k / (COUNT - k)) for k in range(1, COUNT)), 40.0]
    with torch.no_grad():
        root = prior.below_diagonal.tril(-1) + prior.log_scale.flatten().exp().diag()
        mean, covariance = prior.mean.flatten().tolist(), (root @ root.T).tolist()
    stats: Any = scipy.stats
    normal = stats.multivariate_normal(mean, covariance)
    below = [[float(normal.cdf((a, b))) for b in edges] for a in edges]
    cells = [(int(a), int(b)) for a, b in (listed() * (COUNT - 1)).round().flatten(1).tolist()]
    masses = [below[a + 1][b + 1] - below[a][b + 1] - below[a + 1][b] + below[a][b] for a, b in cells]
    return torch.tensor(masses).double().log()


def listed() -> Tensor:
    return all_states(levels(COUNT), PAIR)


@pytest.mark.parametrize("kind", ["planar", "maf", "iaf", "coupling", "spline"])
@torch.no_grad()
def test_weights_have_the_mean_p_and_bounds_approach_it_from_below(kind: flows.Kind) -> None:
    joint, x = built(kind), listed()
    prior = joint.p.parts()["prior"]
    assert isinstance(prior, Gaussian)
    log_p = exact(prior)
    assert log_p.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    log_w = joint.particles(x, 16_384).log_weights  # [K, 16]
    weight = (log_w - log_p).exp()
    assert ((weight.mean(0) - 1).abs() < 5 * weight.std(0) / 128 + 1e-4).all()
    below = [log_p - log_mean_exp(log_w.view(k, -1, len(x))) for k in (1, 16, 256)]  # [draws of a bound, 16]
    gaps = [gap.mean(0) for gap in below]
    errors = [gap.std(0) / math.sqrt(len(gap)) for gap in below]
    for gap, error in zip(gaps, errors, strict=True):
        assert (gap > -5 * error - 1e-4).all()
    assert (gaps[0] > gaps[1]).all()
    assert gaps[1].mean() > gaps[2].mean()
    assert gaps[2].mean() < 0.1 * gaps[0].mean()


@pytest.mark.parametrize("kind", ["planar", "maf", "iaf", "coupling", "spline"])
def test_draws_are_scored_as_they_are_made(kind: flows.Kind) -> None:
    joint, x = built(kind), listed()
    tau, log_q = draw(joint.q(x), 30, reparameterized=True)
    assert joint.p.conditional(tau).log_prob(x).eq(0).all()
    inside = tau.detach().sigmoid() * COUNT - (x * (COUNT - 1)).round()
    clear = ((inside > 1e-6) & (inside < 1 - 1e-6)).flatten(2).all(-1)  # of the edges, where rounding moves s
    assert clear.double().mean() > 0.8
    torch.testing.assert_close(joint.q(x).log_prob(tau)[clear], log_q[clear])
    for estimator in (SGVB(2), IWAE(2, "dreg")):
        joint.zero_grad()
        estimator(joint, x).surrogate.mean().backward()
        assert all(parameter.grad is not None for parameter in joint.q.parameters())


def bent_the_wrong_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """log |det| of the flow with the other sign."""
    right = flows.Flow.draw

    def wrong(self: flows.Flow, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        s, log_s = right(self, count, reparameterized=reparameterized)
        begun = self.flow.base.log_prob(self.flow.transform(s))
        return s, 2 * begun - log_s

    monkeypatch.setattr(flows.Flow, "draw", wrong)


def squashed_the_wrong_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """log |det| from reals into an interval with the other sign."""
    right = dequantized.located

    def wrong(level: Tensor, inside: Tensor, count: int) -> tuple[Tensor, Tensor]:
        tau, slope = right(level, inside, count)
        return tau, -slope

    monkeypatch.setattr(dequantized, "located", wrong)


def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """log w without the noise's own log-probability."""

    def wrong(made: Distribution, count: int, *, reparameterized: bool = False) -> tuple[Tensor, Tensor]:
        s, log_s = draw(made, count, reparameterized=reparameterized)
        return s, torch.zeros_like(log_s)

    monkeypatch.setattr(dequantized, "draw", wrong)


@pytest.mark.parametrize("mutant", [bent_the_wrong_way, squashed_the_wrong_way, forgotten])
@torch.no_grad()
def test_mutants_weigh_no_level_as_p_does(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    joint, x = built(), listed()
    prior = joint.p.parts()["prior"]
    assert isinstance(prior, Gaussian)

    def furthest() -> float:
        return (log_mean_exp(joint.particles(x, 8000).log_weights) - exact(prior)).abs().max().item()

    assert furthest() < 0.06
    mutant(monkeypatch)
    assert furthest() > 0.15


class Standard(Likelihood):
    """Standard logistics, whatever the network says."""

    support = real

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        return Independent(Logistic(0 * outputs, outputs.new_ones(())), len(event_shape))


def test_a_learned_noise_that_learned_nothing_is_the_uniform_one_to_the_bit() -> None:
    x, joints = listed(), []
    for noise in ("uniform", "variational"):
        model = Dequantized(COUNT, noise)
        joints.append(model.build(Gaussian(PAIR), BernoulliLikelihood(), Standard(), torch.full(PAIR, 0.4)).double())
    drawn = []
    for joint in joints:
        torch.manual_seed(0)
        drawn.append(joint.particles(x, 20))
    assert torch.equal(drawn[0].tau, drawn[1].tau)
    assert torch.equal(drawn[0].log_weights, drawn[1].log_weights)


def test_it_learns_that_the_noise_of_one_element_knows_of_anothers() -> None:
    """One interval holds both elements, in which their sum is nearly certain: no noise of each by itself says so."""
    x, gaps = torch.full((1, *PAIR), 0.0), {}
    for noise in ("variational", "flow"):
        torch.manual_seed(0)
        prior = Gaussian(PAIR, covariance="full")
        with torch.no_grad():
            prior.mean.fill_(-2.5)
            prior.below_diagonal[1, 0] = -0.95
            prior.log_scale.copy_(torch.tensor([[0.0], [-1.2]]))
        model = Dequantized(COUNT, noise, (), num_layers=2, flow_hidden=(16,))
        joint = model.build(prior, BernoulliLikelihood(), GaussianLikelihood(), torch.full(PAIR, 0.4))
        optimizer = torch.optim.Adam(joint.q.parameters(), lr=0.03)
        for _ in range(200):
            optimizer.zero_grad()
            SGVB(20)(joint, x).surrogate.mean().backward()
            optimizer.step()
        with torch.no_grad():
            log_w = joint.double().particles(x.double(), 4000).log_weights
            gaps[noise] = (exact(prior)[0] - log_w.mean()).item()
    assert -0.05 < gaps["flow"] < 0.3
    assert gaps["variational"] > gaps["flow"] + 0.5
