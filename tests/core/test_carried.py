"""What latents carry, on worlds where it is listed; and a decoder that does without them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unibound import JointBound, Prior
from unibound.runs.carried import IDLE, carried, told
from unibound.testing import World
from unibound.testing.priors import Rates, Table
from unibound.testing.verdict import FALSE_ALARM


def expected(world: World) -> tuple[float, float, float]:
    """KL(q(tau | x) || p(tau)), its spread over a draw and a datum, and -log p(x | tau): means over data, listed."""
    log_q = world.joint.q(world.xs).log_prob(world.every_tau())  # [S, N]
    log_x, log_tau = world.p.log_terms(world.xs, world.every_tau())
    share, ratio = log_q.exp() / len(world.xs), log_q - log_tau + world.log_z()
    mean = (share * ratio).sum()
    return mean.item(), ((share * ratio.square()).sum() - mean**2).sqrt().item(), -(share * log_x).sum().item()


def decided(prior: Prior) -> World:
    """Of which q says what it saw."""
    world = World.of_bits(3, prior)
    with torch.no_grad():
        last_layer(world.joint.q).weight.mul_(4)
    return world


def last_layer(network: nn.Module) -> nn.Linear:
    return [module for module in network.modules() if isinstance(module, nn.Linear)][-1]


def split(joint: JointBound, x: Tensor, log_z: float) -> tuple[float, float]:
    with torch.no_grad(), joint.evaluating():
        torch.manual_seed(0)
        found = carried(joint, x, log_z)
    assert found is not None
    return found.latents, found.datum


@pytest.mark.parametrize("prior", [Rates, Table])
def test_it_is_the_divergence_whether_the_prior_is_normalized_or_not(prior: type[Prior]) -> None:
    world = decided(prior((2,)))
    latents, spread, datum = expected(world)
    found = split(world.joint, world.xs.repeat(60, 1), world.log_z().item())
    error = FALSE_ALARM * spread / (20 * 480) ** 0.5
    assert abs(found[0] - latents) < error < latents / 4
    assert abs(found[1] - datum) < 0.05
    if prior is Table:
        assert abs(world.log_z().item()) > error, "a log Z that is forgotten would show"


def test_layers_carry_their_sum() -> None:
    world = World.of_layers(3, Rates((2,)))
    with torch.no_grad(), world.joint.evaluating():
        torch.manual_seed(0)
        found = carried(world.joint, world.xs, 0.0)
        torch.manual_seed(0)
        tau = world.joint.particles(world.xs, 20).tau
        datum, *layers = world.joint.log_weight_terms(world.xs, tau).mean((1, 2)).tolist()
    assert found is not None
    assert found.layers == pytest.approx(layers)
    assert found.latents == pytest.approx(-sum(layers))
    assert found.datum == pytest.approx(-datum)


def ignoring() -> World:
    """Of which p does not look at its latents, and q does not look at the data."""
    world = World.of_bits(0, Rates((2,)))
    with torch.no_grad():
        for network in (world.p.generator, world.joint.q):
            last_layer(network).weight.zero_()
        last_layer(world.joint.q).bias.copy_(world.p.prior.logits)
    return world


def test_a_decoder_that_ignores_its_latents_is_told_from_one_that_does_not() -> None:
    idle, busy = (split(world.joint, world.xs, 0.0) for world in (ignoring(), decided(Rates((2,)))))
    assert idle[0] == pytest.approx(0, abs=1e-6)
    assert "p does without its latents" in told(*idle)
    assert busy[0] > IDLE
    assert told(*busy) == f"{busy[0]:.2f} nats in the latents, {busy[1]:.2f} in data given these"


def test_a_fixed_q_of_one_layer_and_a_p_without_terms_carry_nothing_that_is_told(
    fix: Callable[[nn.Module], None],
) -> None:
    world = World.of_bits(0, Rates((2,)))
    fix(world.joint.q)
    assert carried(world.joint, world.xs, 0.0) is None
    world = World.of_bits(0, Rates((2,)))
    world.p.log_terms = lambda x, tau: world.p.log_joint(x, tau).unsqueeze(0)
    assert carried(world.joint, world.xs, 0.0) is None
