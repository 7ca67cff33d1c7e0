"""Wake-sleep: the two objectives, each against the enumerated one."""

import pytest
import torch
from unibound_plugins.estimators.wake_sleep import WakeSleep
from unibound_plugins.priors.rbm import RBM

from unibound import JointBound
from unibound.testing import World, expected_bound, expected_gradient, rehearse
from unibound.testing.listing import gradients

TOLERANCE = 1e-9
WORLDS = {"bits": lambda: World.of_bits(4), "rbm": lambda: World.of_bits(5, RBM((2,), num_hidden=3))}


@pytest.fixture(params=WORLDS)
def world(request):
    return WORLDS[request.param]()


def test_sleep_descends_the_kl_of_the_posterior_on_dreams(world):
    log_posterior, log_prob = world.log_posterior().detach(), world.log_prob().detach()  # [S, N], [N]
    log_q = world.joint.q(world.xs).log_prob(world.taus.unsqueeze(1))  # [S, N]
    kl = (log_posterior.exp() * (log_posterior - log_q)).sum(0)  # [N]
    exact = torch.autograd.grad((log_prob.exp() * kl).sum(), world.groups()["q"])
    got = expected_gradient(world, WakeSleep())["q"]
    torch.testing.assert_close(got, -torch.cat([g.flatten() for g in exact]), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("num_particles", [1, 2])
def test_wake_climbs_the_elbo(world, num_particles):
    got, exact = expected_gradient(world, WakeSleep(num_particles=num_particles)), world.gradient(world.bound(1))
    for group in ("generator", "prior"):
        torch.testing.assert_close(got[group], exact[group], rtol=0, atol=TOLERANCE)


def test_bound_is_the_elbo(world):
    elbo = (world.bound(1) + world.log_z()).detach()
    torch.testing.assert_close(expected_bound(world, WakeSleep()), elbo, rtol=0, atol=TOLERANCE)


def test_dreams_teach_q_alone_and_data_p_alone(world, monkeypatch):
    joint = JointBound(world.joint.q, world.joint.p)
    dream, tau = joint.p.dream(len(world.xs))
    monkeypatch.setattr(joint.p, "dream", lambda count: (dream, tau))
    torch.manual_seed(1)
    got = gradients(WakeSleep()(joint, world.xs).surrogate.sum(), world.groups())
    torch.manual_seed(1)
    wake = joint.particles(world.xs, 1).log_p.sum()
    sleep = joint.q(dream).log_prob(tau).sum()
    p_groups = {name: group for name, group in world.groups().items() if name != "q"}
    exact = gradients(-wake, p_groups) | gradients(-sleep, {"q": world.groups()["q"]})
    for group, gradient in exact.items():
        torch.testing.assert_close(got[group], gradient, rtol=0, atol=TOLERANCE)


def test_dreams_are_of_the_prior_and_not_of_a_chain_that_lags():
    world = WORLDS["rbm"]()
    exact = expected_gradient(world, WakeSleep())["q"]
    world.p.prior.chains = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    rehearsal = rehearse(world, WakeSleep())
    value = -(world.log_data.exp() * rehearsal.mean(rehearsal.estimate.surrogate)).sum()
    got = gradients(value, {"q": world.groups()["q"]})["q"]
    torch.testing.assert_close(got, exact, rtol=0, atol=TOLERANCE)
