"""Contrastive RWS: rws where the chain is stationary, and known to lag where it is not."""

import pytest
import torch
from unibound_plugins.estimators.contrastive_rws import ContrastiveRWS
from unibound_plugins.estimators.rws import RWS
from unibound_plugins.priors.rbm import RBM

from unibound import JointBound, UsageError
from unibound.testing import World, expected_gradient, rehearse
from unibound.testing.listing import gradients

TOLERANCE = 1e-9


@pytest.fixture
def world():
    return World.of_bits(5, RBM((2,), num_hidden=3, num_chains=4))


@pytest.mark.parametrize("mixture", [{"wake_q": 0.0, "sleep_q": 1.0}, {"wake_q": 0.3, "sleep_q": 0.7}])
def test_is_rws_where_the_chain_is_stationary(world, mixture):
    got = expected_gradient(world, ContrastiveRWS(num_particles=2, **mixture))
    for group, gradient in expected_gradient(world, RWS(num_particles=2, **mixture)).items():
        torch.testing.assert_close(got[group], gradient, rtol=0, atol=TOLERANCE)


def test_is_rws_for_a_prior_without_a_chain():
    world = World.of_bits(4)
    got = expected_gradient(world, ContrastiveRWS(num_particles=2))
    for group, gradient in expected_gradient(world, RWS(num_particles=2)).items():
        torch.testing.assert_close(got[group], gradient, rtol=0, atol=TOLERANCE)


def test_sleeps_on_the_chain_as_it_stands(world):
    """With all chains in one state: sum over x of p(x | state) grad log q(state | x)."""
    state = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    world.p.prior.chains = state
    rehearsal = rehearse(world, ContrastiveRWS(num_particles=1, wake_q=0.0, sleep_q=1.0))
    value = -(world.log_data.exp() * rehearsal.mean(rehearsal.estimate.surrogate)).sum()
    got = gradients(value, {"q": world.groups()["q"]})["q"]
    p_x = world.p.generator(state).log_prob(world.xs).exp().detach()
    exact = gradients((p_x * world.joint.q(world.xs).log_prob(state)).sum(), {"q": world.groups()["q"]})["q"]
    torch.testing.assert_close(got, exact, rtol=0, atol=TOLERANCE)
    stationary = expected_gradient(world, RWS(num_particles=1, wake_q=0.0, sleep_q=1.0))["q"]
    assert (got - stationary).norm() > 0.1 * stationary.norm()


def test_dreams_are_draws_of_the_chain_and_not_means(world, monkeypatch):
    dreams = []

    def watch(count, *, persistent=False):
        assert persistent
        dreams.append(type(world.joint.p).dream(world.joint.p, count, persistent=persistent))
        return dreams[-1]

    monkeypatch.setattr(world.joint.p, "dream", watch)
    ContrastiveRWS()(JointBound(world.joint.q, world.joint.p), world.xs)
    ((x, tau),) = dreams
    assert x.shape == world.xs.shape
    assert ((x == 0) | (x == 1)).all()
    assert torch.equal(tau, world.p.prior.chains[torch.arange(len(x)) % 4])


def test_moves_the_chain_before_each_step():
    assert ContrastiveRWS().persistent


def test_refuses_to_ignore_the_chain(world):
    with pytest.raises(UsageError, match="or use rws"):
        ContrastiveRWS(sleep_q=0.0).check(world.joint, world.xs)
