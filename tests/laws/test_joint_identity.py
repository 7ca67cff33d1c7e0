"""The identity that the library is built on: KL(q || p) = KL(D || p(x)) + E_D KL(q(tau | x) || p(tau | x))."""

import pytest
import torch
from hypothesis import given, settings

from unibound import registries, support
from unibound.testing import World
from unibound.testing.strategies import worlds


def check_identity(world: World) -> None:
    found = world.joint.divergence(world.xs, world.log_data, world.taus)
    data, log_p = world.log_data.exp(), world.log_prob().detach()
    marginal = (data * (world.log_data - log_p)).sum().item()
    tau = world.taus.unsqueeze(1).expand(-1, len(world.xs), -1)
    log_q = world.joint.q(world.xs).log_prob(tau)  # [S, N]
    conditional = (data * (log_q.exp() * (log_q - world.log_posterior())).sum(0)).sum().item()
    elbo = (data * world.bound(1)).sum().item()

    assert found.kl == pytest.approx(marginal + conditional, abs=1e-9)  # 1a
    assert found.bound == pytest.approx(-elbo, abs=1e-9)  # 1b
    assert found.nll == pytest.approx(-(data * log_p).sum().item(), abs=1e-9)
    assert found.bound - found.nll == pytest.approx(conditional, abs=1e-9)
    assert found.kl >= 0
    assert found.bound >= found.nll >= 0  # x is discrete


@settings(max_examples=25)
@given(worlds())
def test_identity(world: World) -> None:
    check_identity(world)


@pytest.mark.parametrize("name", registries()["prior"])
def test_identity_under_every_prior_of_bits(name: str) -> None:
    prior = registries()["prior"][name]
    if prior.support is support.real:
        pytest.skip("over reals")
    if prior((2,)).inner is not None:
        pytest.skip("keeps latents of its own, beside those of q here")
    check_identity(World.of_bits(3, prior((2,))))


def test_bound_is_tight_at_the_posterior() -> None:
    world = World.of_bits(3)
    p, joint = world.p, world.joint
    # A generator that does not look at tau makes the prior the posterior.
    with torch.no_grad():
        last_p, last_q = list(p.generator.modules())[-1], list(joint.q.modules())[-1]
        last_p.get_parameter("weight").zero_()
        last_q.get_parameter("weight").zero_()
        last_q.get_parameter("bias").copy_(p.prior.get_parameter("logits"))
    found = joint.divergence(world.xs, world.log_data, world.taus)
    assert found.bound == pytest.approx(found.nll, abs=1e-12)
