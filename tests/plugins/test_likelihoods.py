"""Distributions over reals: normalized, reparameterized, and as they are in scipy."""

import pytest
import scipy.stats
import torch
from torch.distributions import TransformedDistribution, Uniform
from torch.distributions.transforms import AffineTransform, SigmoidTransform
from torch.nn.functional import softplus
from unibound_plugins.estimators.sgvb import SGVB
from unibound_plugins.likelihoods.gaussian import Gaussian
from unibound_plugins.likelihoods.laplace import Laplace
from unibound_plugins.likelihoods.logistic import Logistic
from unibound_plugins.likelihoods.student_t import StudentT
from unibound_plugins.models.mlp import MLP
from unibound_plugins.priors.gaussian import Gaussian as GaussianPrior

from unibound import distributions, registries

SCIPY = {
    Gaussian(): scipy.stats.norm,
    Laplace(): scipy.stats.laplace,
    Logistic(): scipy.stats.logistic,
    StudentT(): scipy.stats.t(5),
    StudentT(degrees=2.5): scipy.stats.t(2.5),
}


@pytest.fixture(params=SCIPY, ids=str)
def likelihood(request):
    return request.param


def outputs(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_log_prob_is_that_of_scipy(likelihood):
    out = outputs(4, 2, 3, 5)  # two outputs for each element of an event of 3 x 5
    x = 4 * torch.randn(6, 4, 3, 5, dtype=torch.float64)
    distribution = likelihood(out, tuple(out.shape[-2:]))
    assert distribution.batch_shape == (4,)
    assert distribution.event_shape == (3, 5)
    location, scale = out[:, 0], 1e-3 + softplus(out[:, 1])
    standard = torch.from_numpy(SCIPY[likelihood].logpdf(((x - location) / scale).numpy()))
    torch.testing.assert_close(distribution.log_prob(x), (standard - scale.log()).sum((-1, -2)), rtol=0, atol=1e-9)


def test_draws_are_distributed_as_they_should_and_carry_gradients(likelihood):
    torch.manual_seed(0)
    out = torch.tensor([[0.7], [-0.4]], dtype=torch.float64, requires_grad=True)  # [2, 1]
    distribution = likelihood(out, (1,))
    assert distribution.has_rsample
    draws = distribution.rsample((20_000,))
    assert draws.shape == (20_000, 1)
    standard = ((draws - out[0]) / (1e-3 + softplus(out[1]))).detach().squeeze(1)
    assert scipy.stats.kstest(standard.numpy(), SCIPY[likelihood].cdf).pvalue > 1e-5
    (gradient,) = torch.autograd.grad(draws.mean(), out)
    assert gradient[0].item() == pytest.approx(1)
    assert gradient[1].item() != 0


def test_moments(likelihood):
    distribution = likelihood(outputs(2, 3), (3,))
    scale = 1e-3 + softplus(outputs(2, 3)[1])
    torch.testing.assert_close(distribution.mean, outputs(2, 3)[0])
    torch.testing.assert_close(distribution.stddev, scale * SCIPY[likelihood].std())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_far_out(likelihood, dtype):
    out = torch.tensor([[0.0], [-40.0]], dtype=dtype, requires_grad=True)  # the smallest scale
    value = likelihood(out, (1,)).log_prob(torch.tensor([[-1e4], [0.0], [1e4]], dtype=dtype))
    assert value.isfinite().all()
    assert torch.autograd.grad(value.sum(), out)[0].isfinite().all()


def test_trains_as_a_posterior(likelihood):
    torch.manual_seed(0)
    joint = MLP(num_latents=2, hidden=(5,)).build(GaussianPrior((2,)), likelihood, likelihood, torch.zeros(4))
    x = torch.randn(6, 4)
    SGVB().check(joint, x)
    estimate = SGVB()(joint, x)
    estimate.surrogate.mean().backward()
    assert estimate.surrogate.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in joint.q.parameters())


def test_logistic_is_the_one_built_of_transforms():
    location, scale = torch.tensor([0.3, -1.2]).double(), torch.tensor([0.4, 2.5]).double()
    zero, one = torch.zeros(2).double(), torch.ones(2).double()
    built = TransformedDistribution(Uniform(zero, one), [SigmoidTransform().inv, AffineTransform(location, scale)])
    ours = distributions.Logistic(location, scale)
    x = torch.linspace(-5, 5, 11).double().unsqueeze(1)
    torch.testing.assert_close(ours.log_prob(x), built.log_prob(x))
    torch.testing.assert_close(ours.cdf(x), built.cdf(x))
    torch.testing.assert_close(ours.icdf(ours.cdf(x)), x.expand(-1, 2))
    torch.testing.assert_close(ours.entropy(), torch.from_numpy(scipy.stats.logistic(0, scale.numpy()).entropy()))


def test_logistic_never_draws_infinity(monkeypatch):
    ends = torch.tensor([0.0, 1.0])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: ends)
    assert distributions.Logistic(torch.zeros(2), torch.ones(2)).sample().isfinite().all()


@pytest.mark.parametrize("name", registries()["likelihood"])
def test_what_a_network_begins_at_is_the_mean_of_the_data(name):
    likelihood, mean = registries()["likelihood"][name](), torch.linspace(0.1, 0.9, 60).view(3, 4, 5)
    begun = likelihood.start(mean)
    assert begun.shape == likelihood.outputs((3, 4, 5))
    made = likelihood(begun, (3, 4, 5))
    if name == "categorical":  # whose numbers are but names
        assert not begun.any()
    elif name in ("discretized_logistic", "logistic_mixture"):  # locations [M, C, P] on the scale from -1 to 1
        torch.testing.assert_close(made.location, (2 * mean - 1).view(made.location[0].shape).expand_as(made.location))
    else:
        torch.testing.assert_close(made.mean, mean)
