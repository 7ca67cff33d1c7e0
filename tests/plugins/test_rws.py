"""RWS: what each of its three updates is on average, by enumeration."""

import attrs
import pytest
import torch
from unibound_plugins.estimators.rws import RWS
from unibound_plugins.estimators.wake_sleep import WakeSleep
from unibound_plugins.priors.rbm import RBM

from unibound import Estimate, Estimator, UsageError
from unibound.testing import World, expected_gradient
from unibound.weights import log_mean_exp

TOLERANCE = 1e-9
WORLDS = {"bits": lambda: World.of_bits(4), "rbm": lambda: World.of_bits(5, RBM((2,), num_hidden=3))}


@attrs.frozen
class ScorePart(Estimator):
    """sum_i L_hat grad log q(tau_i | x): the part of grad L_K that comes from where the particles fall."""

    num_particles: int = 2

    def __call__(self, joint, x):
        particles = joint.particles(x, self.num_particles)
        bound = log_mean_exp(particles.log_weights).detach()
        return Estimate(-bound * particles.log_q.sum(0), bound, particles.log_weights.detach(), side="lower")


@pytest.fixture(params=WORLDS)
def world(request):
    return WORLDS[request.param]()


def wake(world, k):
    return expected_gradient(world, RWS(num_particles=k, wake_q=1.0, sleep_q=0.0))


def test_wake_q_is_zero_on_average_with_one_particle(world):
    q = wake(world, 1)["q"]
    torch.testing.assert_close(q, torch.zeros_like(q), rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [2, 3])
def test_gradient_of_the_bound_is_the_score_part_less_wake_q(world, k):
    score = expected_gradient(world, ScorePart(num_particles=k))["q"]
    exact = world.gradient(world.bound(k))["q"]
    torch.testing.assert_close(score - wake(world, k)["q"], exact, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_wake_p_is_the_gradient_of_the_bound_whatever_q_learns(world, k):
    exact = world.gradient(world.bound(k))
    for mixture in ({"wake_q": 1.0, "sleep_q": 0.0}, {"wake_q": 0.3, "sleep_q": 0.7}):
        got = expected_gradient(world, RWS(num_particles=k, **mixture))
        for group in ("generator", "prior"):
            torch.testing.assert_close(got[group], exact[group], rtol=0, atol=TOLERANCE)


def test_bias_of_wake_q_falls_as_one_over_k():
    world = World.of_bits(4)
    log_posterior = world.log_posterior().detach()
    log_q = world.joint.q(world.xs).log_prob(world.taus.unsqueeze(1))
    target = world.gradient((log_posterior.exp() * log_q).sum(0))["q"]  # of -KL(p(tau | x) || q)
    bias = torch.stack([(wake(world, k)["q"] - target).norm() for k in range(1, 6)])
    assert (bias.diff() < 0).all()
    assert ((torch.arange(1, 6) * bias).diff().diff() < 0).all()  # K times the bias levels off


def test_sleep_q_is_that_of_wake_sleep_and_the_mixture_is_linear(world):
    sleep = expected_gradient(world, RWS(num_particles=2, wake_q=0.0, sleep_q=1.0))["q"]
    torch.testing.assert_close(sleep, expected_gradient(world, WakeSleep())["q"], rtol=0, atol=TOLERANCE)
    mixed = expected_gradient(world, RWS(num_particles=2, wake_q=0.3, sleep_q=0.7))["q"]
    torch.testing.assert_close(mixed, 0.3 * wake(world, 2)["q"] + 0.7 * sleep, rtol=0, atol=TOLERANCE)


def test_no_dreams_where_none_are_wanted(world, monkeypatch):
    monkeypatch.setattr(world.joint.p, "dream", lambda *_, **__: pytest.fail("dreamed"), raising=True)
    RWS(wake_q=1.0, sleep_q=0.0)(world.joint, world.xs)


def test_refuses_to_leave_q_untaught():
    world = World.of_bits(4)
    for settings in ({"wake_q": 0.0}, {"num_particles": 1}):
        with pytest.raises(UsageError, match="does not teach q anything"):
            RWS(sleep_q=0.0, **settings).check(world.joint, world.xs)
    RWS().check(world.joint, world.xs)
