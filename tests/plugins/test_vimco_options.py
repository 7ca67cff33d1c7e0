"""VIMCO's two baselines: the same expectation, and what they do to the variance."""

import math
from typing import ClassVar

import attrs
import pytest
import torch
from unibound_plugins.estimators.vimco import VIMCO
from unibound_plugins.priors.rbm import RBM

from unibound import Estimate, Estimator, UsageError
from unibound.testing import World, expected_gradient, variance
from unibound.weights import arithmetic_signal, log_mean_exp

TOLERANCE = 1e-9


@attrs.frozen
class NoBaseline(Estimator):
    """The K-particle bound's score-function gradient as it comes."""

    needs: ClassVar[str] = "anything"
    num_particles: int = 2

    def __call__(self, joint, x):
        particles = joint.particles(x, self.num_particles)
        bound = log_mean_exp(particles.log_weights)
        surrogate = -(bound.detach() * particles.log_q.sum(0) + bound)
        return Estimate(surrogate, bound.detach(), particles.log_weights.detach(), side="lower")


WORLDS = {"bits": lambda: World.of_bits(4), "rbm": lambda: World.of_bits(5, RBM((2,), num_hidden=3))}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("baseline", ["geometric", "arithmetic"])
@pytest.mark.parametrize("k", [2, 3])
def test_expected_gradient_is_that_of_the_bound(world, baseline, k):
    world = WORLDS[world]()
    exact = world.gradient(world.bound(k))
    got = expected_gradient(world, VIMCO(num_particles=k, baseline=baseline))
    for group, gradient in exact.items():
        torch.testing.assert_close(got[group], gradient, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("baseline", ["geometric", "arithmetic"])
@pytest.mark.parametrize("k", [2, 3])
def test_exact_variance_is_below_that_of_no_baseline(world, baseline, k):
    world = WORLDS[world]()
    with_baseline = variance(world, VIMCO(num_particles=k, baseline=baseline), "q")
    assert with_baseline < 0.5 * variance(world, NoBaseline(num_particles=k), "q")


def test_arithmetic_signal_is_the_definition():
    log_w = torch.randn(5, 3, dtype=torch.float64) * 3
    others = torch.stack([log_mean_exp(torch.cat([log_w[:i], log_w[i + 1 :]])) for i in range(5)])
    torch.testing.assert_close(arithmetic_signal(log_w), log_mean_exp(log_w) - others, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arithmetic_signal_is_stable_where_one_weight_dominates(dtype):
    log_w = torch.tensor([[0.0, -800.0], [-300.0, -9e3], [-310.0, 1e4]], dtype=dtype)
    signal = arithmetic_signal(log_w).double()
    expected = torch.tensor(
        [[300 - math.log1p(math.exp(-10)) + math.log(2 / 3), 0], [math.log(2 / 3)] * 2, [math.log(2 / 3), 1e4 + 800]]
    ).double()
    expected[0, 1] = math.log(2 / 3)
    expected[2, 1] += math.log(2 / 3)
    torch.testing.assert_close(signal, expected, rtol=1e-6, atol=2e-3 if dtype == torch.float32 else 1e-4)
    torch.testing.assert_close(arithmetic_signal(log_w + 5).double(), signal, rtol=1e-6, atol=2e-3)


def test_one_particle_is_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"num_particles must be at least 2.*with 1 use nvil"):
        VIMCO(num_particles=1)
    with pytest.raises(UsageError, match="at least 2, or nvil"):
        arithmetic_signal(torch.zeros(1, 3))
