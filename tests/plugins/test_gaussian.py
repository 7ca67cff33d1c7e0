"""The Gaussian prior with its three covariances."""

import functools

import pytest
import scipy.stats
import torch
from unibound_plugins.estimators.sgvb import SGVB
from unibound_plugins.priors.gaussian import Gaussian

from unibound.testing import World, examine_prior, expected_bound
from unibound.testing.listing import scatter

COVARIANCES = ("fixed", "diagonal", "full")


def covariance(prior):
    """The covariance that the parameters say."""
    scale = torch.diag(prior.log_scale.flatten().exp())
    below = prior.below_diagonal.tril(-1) if prior.covariance == "full" else 0
    return (scale + below) @ (scale + below).T


@pytest.mark.parametrize("kind", COVARIANCES)
@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_log_prob_is_that_of_scipy(kind, shape):
    prior = scatter(Gaussian(shape, covariance=kind), seed=1).double()
    tau = torch.randn(5, 4, *shape, dtype=torch.float64)
    exact = scipy.stats.multivariate_normal(
        prior.mean.detach().flatten().numpy(), covariance(prior).detach().numpy()
    ).logpdf(tau.flatten(2).numpy())
    torch.testing.assert_close(prior.log_prob(tau).detach(), torch.from_numpy(exact), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", COVARIANCES)
@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_samples_have_its_moments(kind, shape):
    torch.manual_seed(0)
    prior = scatter(Gaussian(shape, covariance=kind), seed=1).double()
    tau = prior.sample(100_000)
    assert tau.shape == (100_000, *shape)
    assert not tau.requires_grad
    exact = covariance(prior).detach()
    torch.testing.assert_close(tau.mean(0), prior.mean.detach(), rtol=0, atol=0.05)
    torch.testing.assert_close(tau.flatten(1).T.cov(), exact, rtol=0, atol=0.03 * exact.diagonal().max().item())


@pytest.mark.parametrize("kind", COVARIANCES)
def test_begins_standard_normal(kind):
    prior = Gaussian((4,), covariance=kind)
    tau = torch.randn(7, 4)
    torch.testing.assert_close(prior.log_prob(tau), torch.distributions.Normal(0.0, 1.0).log_prob(tau).sum(-1))


def test_what_is_learned():
    names = {kind: {name for name, _ in Gaussian((2,), covariance=kind).named_parameters()} for kind in COVARIANCES}
    assert names == {
        "fixed": set(),
        "diagonal": {"mean", "log_scale"},
        "full": {"mean", "log_scale", "below_diagonal"},
    }


def test_full_covariance_is_learned_from_data():
    torch.manual_seed(0)
    true = scatter(Gaussian((3,), covariance="full"), seed=1).double()
    tau, prior = true.sample(5000), Gaussian((3,), covariance="full").double()
    optimizer = torch.optim.LBFGS(prior.parameters(), max_iter=200)

    def loss():
        optimizer.zero_grad()
        value = -prior.log_prob(tau).mean()
        value.backward()
        return value

    optimizer.step(loss)
    torch.testing.assert_close(covariance(prior).detach(), tau.T.cov(correction=0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", COVARIANCES)
def test_sits_the_exam(kind):
    broken = {v.law: v.detail for v in examine_prior(functools.partial(Gaussian, covariance=kind)) if not v.held}
    assert not broken


@pytest.mark.parametrize("kind", COVARIANCES)
def test_the_elbo_stays_below_the_likelihood(kind):
    world = World.of_reals(3, Gaussian((1,), covariance=kind))
    assert (expected_bound(world, SGVB()) < world.log_prob()).all()
