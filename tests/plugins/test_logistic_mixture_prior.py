"""Prior `logistic_mixture`: the exam, what uniform noise costs under it, and what it may be of."""

import math

import pytest
import torch
from unibound_plugins.estimators.sgvb import SGVB
from unibound_plugins.likelihoods.gaussian import Gaussian as GaussianLikelihood
from unibound_plugins.models.identity import Identity
from unibound_plugins.priors.logistic_mixture import LogisticMixture

from unibound import JointBound, UsageError
from unibound.evaluation.evaluate import evaluate
from unibound.testing import examine_prior


def fitted(x: torch.Tensor, steps: int) -> JointBound:
    """By maximum likelihood."""
    likelihood = GaussianLikelihood()
    joint = Identity().build(LogisticMixture(tuple(x.shape[1:])), likelihood, likelihood, x.mean(0))
    optimizer = torch.optim.Adam(joint.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        SGVB()(joint, x).surrogate.mean().backward()
        optimizer.step()
    return joint


def test_it_sits_the_exam() -> None:
    assert [verdict for verdict in examine_prior(LogisticMixture) if not verdict.held] == []


def test_uniform_noise_is_eight_bits_of_each_level() -> None:
    """By maximum likelihood of the uniform distribution itself, every level of it, to which noise is then held."""
    joint = fitted(torch.zeros(2, 1, 1), 0).double()
    prior = joint.p.parts()["prior"]
    assert isinstance(prior, LogisticMixture)
    listed = torch.arange(256).double().view(256, 1, 1) / 255
    optimizer = torch.optim.LBFGS(prior.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def cost() -> float:
        optimizer.zero_grad()
        bits = -prior.log_prob(listed).mean() / math.log(2)
        bits.backward()
        return bits.item()

    optimizer.step(cost)
    assert 8 - 1e-9 < cost() < 8.01  # none is less than its entropy
    torch.manual_seed(0)
    noise = torch.randint(256, (20_000, 1, 1)).double() / 255
    found = evaluate(joint, noise, num_particles=1, posterior="none")
    assert found.bits_per_dim == pytest.approx(8.0, abs=0.01)
    assert found.nll_stderr < 0.01 * math.log(2) / 3


def test_what_is_not_uniform_costs_less_and_channels_are_seen_to_hang_together() -> None:
    torch.manual_seed(0)
    first = torch.randint(256, (2000, 1, 1, 1))
    x = torch.cat([first, first, first], 1) / 255
    found = evaluate(fitted(x, 150), x, num_particles=1, posterior="none")
    assert math.log(256) < found.nll < 0.8 * 3 * math.log(256)


def test_channels_last_and_no_mixture_are_refused() -> None:
    with pytest.raises(UsageError, match="move the channels to the front"):
        LogisticMixture((32, 32, 3))
    with pytest.raises(UsageError, match="needs levels, components"):
        LogisticMixture((3, 4, 4), num_components=0)
