"""The worlds are what they say, and a replay lists every draw with its probability."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from torch.distributions import MultivariateNormal

from unibound import Estimate, Estimator, JointBound
from unibound.testing import World, examine_prior, rehearse
from unibound.testing.networks import LinearGenerator
from unibound.testing.priors import Bell, Rates, Table
from unibound.testing.strategies import worlds
from unibound.testing.verdict import FALSE_ALARM
from unibound.weights import log_mean_exp


class Plain(Estimator):
    """Two particles and a dream, and nothing made of them but the bound."""

    def __init__(self, persistent: bool = False) -> None:
        self.from_chain = persistent

    def __call__(self, joint: JointBound, x: torch.Tensor) -> Estimate:
        particles = joint.particles(x, 2)
        dream, tau = joint.p.dream(len(x), persistent=self.from_chain)
        surrogate = particles.log_q.sum(0) + joint.q(dream).log_prob(tau)
        return Estimate(surrogate, log_mean_exp(particles.log_weights).detach(), None, "lower")


@settings(max_examples=20)
@given(worlds())
def test_probabilities_sum_to_one(world: World) -> None:
    torch.testing.assert_close(world.log_prob().exp().sum(), torch.tensor(1.0).double())
    torch.testing.assert_close(world.log_posterior().exp().sum(0), torch.ones(8).double())
    torch.testing.assert_close(world.log_data.exp().sum(), torch.tensor(1.0).double())


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_symmetric(seed: int) -> None:
    for world in (World.of_bits(seed), World.of_bits(seed, Table((2,))), World.of_reals(seed)):
        for values in (world.log_prob(), world.log_data, world.bound(1), world.bound(2), world.joint.q(world.xs).mean):
            apart = (values.detach().flatten().unsqueeze(0) - values.detach().flatten().unsqueeze(1)).abs()
            assert (apart + torch.eye(len(apart)) > 1e-6).all()


def test_bounds_increase_with_particles() -> None:
    world = World.of_bits(2)
    ladder = torch.stack([*(world.bound(k) for k in (1, 2, 3, 4)), world.log_prob()])
    assert (ladder.diff(dim=0) > 0).all()


def test_linear_gaussian_world_has_its_closed_form() -> None:
    world = World.of_reals(3)
    prior, generator = world.p.prior, world.p.generator
    assert isinstance(prior, Bell)
    assert isinstance(generator, LinearGenerator)
    slope, noise, scale = generator.mean.weight, (2 * generator.log_scale).exp(), (2 * prior.log_scale).exp()
    marginal = MultivariateNormal(generator.mean(prior.mean), slope @ slope.T * scale + noise.diag())
    torch.testing.assert_close(world.log_prob(), marginal.log_prob(world.xs))

    precision = 1 / scale + (slope.squeeze(1).square() / noise).sum()
    residual = (world.xs - generator.mean.bias) / noise @ slope.squeeze(1)  # [N]
    mean, variance = (prior.mean / scale + residual) / precision, 1 / precision
    q = world.joint.q(world.xs)
    m, s2 = q.mean.squeeze(1), q.variance.squeeze(1)
    kl = 0.5 * (s2 / variance + (m - mean).square() / variance - 1 - (s2 / variance).log())
    torch.testing.assert_close(world.bound(1) + kl, world.log_prob())


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("prior", [Rates, Table])
def test_replay_lists_every_draw_once(prior: type, persistent: bool) -> None:
    world = World.of_bits(1, prior((2,)))
    rehearsal = rehearse(world, Plain(persistent))
    torch.testing.assert_close(rehearsal.mean(torch.ones(len(rehearsal.datum))), torch.ones(8).double())
    torch.testing.assert_close(rehearsal.mean(rehearsal.estimate.bound) - world.log_z(), world.bound(2))


def test_replay_agrees_with_draws() -> None:
    world = World.of_bits(1, Table((2,)))
    expected = rehearse(world, Plain(persistent=True))
    torch.manual_seed(0)
    drawn = Plain(persistent=True)(world.joint, world.xs.repeat(20_000, 1))
    for field in ("surrogate", "bound"):
        draws = getattr(drawn, field).view(20_000, 8)
        off = (draws.mean(0) - expected.mean(getattr(expected.estimate, field))) / draws.std(0) * 20_000**0.5
        assert off.abs().max() < FALSE_ALARM


@pytest.mark.parametrize("prior", [Rates, Table, Bell])
def test_the_priors_of_the_worlds_sit_the_exam(prior: type) -> None:
    assert not [verdict for verdict in examine_prior(prior) if not verdict.held]


def test_the_exam_needs_no_test_tools() -> None:
    code = "import sys; sys.modules.update(pytest=None, hypothesis=None); import unibound.testing"
    subprocess.run([sys.executable, "-c", code], check=True)
