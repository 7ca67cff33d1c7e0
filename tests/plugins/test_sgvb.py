"""SGVB on a linear-Gaussian world, where the posterior is known, and its closed-form KL."""

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence
from unibound_plugins.estimators.sgvb import SGVB
from unibound_plugins.likelihoods.student_t import StudentT
from unibound_plugins.models.mlp import MLP
from unibound_plugins.priors.bernoulli import Bernoulli
from unibound_plugins.priors.gaussian import Gaussian

from unibound import UsageError
from unibound.testing import World, expected_bound, expected_gradient, variance
from unibound.testing.verdict import FALSE_ALARM

TOLERANCE = 1e-9


@pytest.fixture
def world():
    return World.of_reals(3)


def closed_form(world):
    """log p(x) of every datum [N], and p(tau | x) of the one latent: precisions add."""
    prior, generator = world.p.prior.distribution().base_dist, world.p.generator
    slope, noise = generator.mean.weight, (2 * generator.log_scale).exp()  # [2, 1], [2]
    p_x = MultivariateNormal(generator.mean(prior.loc), noise.diag() + prior.scale.square() * slope @ slope.T)
    precision = prior.scale**-2 + (slope.squeeze(1).square() / noise).sum()
    evidence = (world.xs - generator.mean.bias) @ (slope / noise.unsqueeze(1))  # [N, 1]
    mean = (prior.loc / prior.scale**2 + evidence) / precision
    return p_x.log_prob(world.xs), Independent(Normal(mean, precision.rsqrt().expand_as(mean)), 1)


@pytest.mark.parametrize("analytic_kl", [False, True])
@pytest.mark.parametrize("num_particles", [1, 2])
def test_elbo_and_kl_to_the_posterior_make_log_p(world, analytic_kl, num_particles):
    elbo = expected_bound(world, SGVB(num_particles=num_particles, analytic_kl=analytic_kl))
    log_prob, posterior = closed_form(world)
    kl = kl_divergence(world.joint.q(world.xs), posterior)
    torch.testing.assert_close(elbo + kl, log_prob, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("analytic_kl", [False, True])
def test_expected_gradient_is_that_of_the_elbo(world, analytic_kl):
    exact = world.gradient(world.bound(1))
    got = expected_gradient(world, SGVB(analytic_kl=analytic_kl))
    assert exact.keys() == {"q", "generator", "prior"}
    for group, gradient in exact.items():
        torch.testing.assert_close(got[group], gradient, rtol=0, atol=TOLERANCE)


def test_a_closed_form_kl_lowers_the_variance_where_the_prior_is_far_from_the_posterior(world):
    sampled, analytic = (variance(world, SGVB(analytic_kl=option), "prior") for option in (False, True))
    assert analytic < 1e-9 * sampled  # the prior's gradient is then no longer random


@pytest.mark.parametrize("covariance", ["fixed", "diagonal", "full"])
def test_closed_form_kl_for_every_gaussian_prior(covariance):
    torch.manual_seed(0)
    prior = Gaussian((3,), covariance=covariance)
    for parameter in prior.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    q = Independent(Normal(torch.randn(4, 3), torch.rand(4, 3) + 0.2), 1)
    tau = q.sample((200_000,))
    sampled = q.log_prob(tau) - prior.log_prob(tau)  # [S, 4]
    exact = kl_divergence(q, prior.distribution())
    assert ((sampled.mean(0) - exact).abs() < FALSE_ALARM * sampled.std(0) / len(tau) ** 0.5).all()


def build(prior, posterior):
    return MLP(num_latents=3, hidden=(4,)).build(prior, posterior, posterior, torch.rand(2, 2))


def test_refuses_what_cannot_work():
    from unibound_plugins.likelihoods.bernoulli import Bernoulli as Bits

    x = torch.rand(2, 2, 2)
    with pytest.raises(UsageError, match=r"q\(tau \| x\) is Bits; use vimco"):
        SGVB().check(build(Bernoulli((3,)), Bits()), x)
    joint = build(Gaussian((3,)), StudentT())
    SGVB().check(joint, x)
    with pytest.raises(UsageError, match=r"closed form.*posterior gaussian"):
        SGVB(analytic_kl=True).check(joint, x)
    joint.p.prior = Bernoulli((3,))
    with pytest.raises(UsageError, match="such as gaussian"):
        SGVB(analytic_kl=True).check(joint, x)
