"""Renyi bounds: VIMCO's at alpha = 0, the ELBO at 1, exact gradients between and beyond, and no side below 0."""

import math

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from unibound_plugins.estimators.nvil import NVIL
from unibound_plugins.estimators.renyi import Renyi
from unibound_plugins.estimators.vimco import VIMCO
from unibound_plugins.priors.rbm import RBM

from unibound import Side
from unibound.testing import World, examine_estimator, expected_bound, expected_gradient, rehearse
from unibound.testing.listing import tuples
from unibound.testing.strategies import log_weights
from unibound.weights import log_mean_exp, renyi_bound, renyi_signal

ORDERS = (-1.0, 0.0, 0.3, 0.5, 1.0, 2.0)
WORLDS = {
    "bits": lambda: World.of_bits(4),
    "rbm": lambda: World.of_bits(5, RBM((2,), num_hidden=3)),
    "layers": lambda: World.of_layers(2),
}


def orders() -> st.SearchStrategy[float]:
    """1, and orders so far from it that 1 / (1 - alpha) costs no digits."""
    return st.floats(-2, 3).filter(lambda alpha: alpha == 1 or abs(1 - alpha) > 0.05)


def bound(world: World, alpha: float, k: int) -> Tensor:
    """E[L_alpha] of k particles of every datum [N], nats, by listing, differentiable."""
    posterior = world.joint.q(world.xs)
    tau, log_q = world.nodes(posterior)
    log_w = world.log_joint(tau) - posterior.log_prob(tau)  # [Q, N]
    index = tuples(len(tau), k).T  # [K, Q^K]
    power = 1 - alpha
    chosen = log_w[index]
    values = chosen.mean(0) if power == 0 else ((power * chosen).logsumexp(0) - math.log(k)) / power
    return (log_q[index].sum(0).exp() * values).sum(0)


@pytest.mark.parametrize("alpha", [-0.5, 0.5, 1.0])
def test_it_sits_the_exam(alpha: float) -> None:
    assert [verdict for verdict in examine_estimator(Renyi(alpha=alpha)) if not verdict.held] == []


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("alpha", ORDERS)
def test_the_gradient_is_that_of_the_bound(name: str, k: int, alpha: float) -> None:
    world, renyi = WORLDS[name](), Renyi(alpha=alpha, num_particles=k)
    exact = bound(world, alpha, k)
    torch.testing.assert_close(expected_bound(world, renyi) - world.log_z(), exact, atol=1e-9, rtol=0)
    got = expected_gradient(world, renyi)
    for group, gradient in world.gradient(exact).items():
        torch.testing.assert_close(got[group], gradient, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("name", WORLDS)
def test_at_zero_it_is_vimco(name: str) -> None:
    world = WORLDS[name]()
    mine, its = (rehearse(world, one) for one in (Renyi(alpha=0.0, num_particles=2), VIMCO(num_particles=2)))
    for field in ("surrogate", "bound", "log_weights"):
        torch.testing.assert_close(getattr(mine.estimate, field), getattr(its.estimate, field))
    assert mine.estimate.side is its.estimate.side is Side.LOWER


@pytest.mark.parametrize("k", [1, 2, 3])
def test_at_one_it_is_the_elbo(k: int) -> None:
    world = World.of_bits(4)
    renyi, nvil = Renyi(alpha=1.0, num_particles=k), NVIL()
    torch.testing.assert_close(expected_bound(world, renyi), world.bound(1), atol=1e-9, rtol=0)
    one, other = expected_gradient(world, renyi), expected_gradient(world, nvil)
    for group, gradient in one.items():
        torch.testing.assert_close(gradient, other[group], atol=1e-9, rtol=0)


def test_it_falls_as_alpha_rises() -> None:
    world = World.of_bits(2)
    ladder = torch.stack([bound(world, alpha, 3) for alpha in ORDERS])
    assert (ladder.diff(dim=0) < 0).all()
    for alpha, values in zip(ORDERS, ladder, strict=True):
        side = rehearse(world, Renyi(alpha=alpha, num_particles=3)).estimate.side
        assert side is (Side.LOWER if alpha >= 0 else Side.NONE)
        if alpha >= 0:
            assert (values <= world.log_prob()).all()


def test_below_zero_it_can_exceed_log_p() -> None:
    """Why no side is claimed there: with many particles, and a q that is far off, it is above log p(x)."""
    world = World.of_bits(10)
    posterior = world.joint.q(world.xs)
    tau, log_q = world.nodes(posterior)
    log_w = world.log_joint(tau) - posterior.log_prob(tau)
    limit = (log_q + 3 * log_w).logsumexp(0) / 3  # alpha = -2, K without end
    assert (limit > world.log_prob()).all()
    assert (bound(world, -2.0, 6) > world.log_prob()).any()


@pytest.mark.parametrize("alpha", ORDERS)
def test_only_at_its_ends_are_the_log_weights_its_own(alpha: float) -> None:
    estimate = rehearse(World.of_bits(1), Renyi(alpha=alpha, num_particles=2)).estimate
    assert (estimate.log_weights is not None) == (alpha in (0.0, 1.0))


@settings(deadline=None)
@given(log_weights(largest=50.0), orders())
def test_a_particle_does_not_see_itself(log_w: Tensor, alpha: float) -> None:
    moved = log_w.clone()
    moved[0] += 3.25
    before, after = (renyi_bound(values, alpha) - renyi_signal(values, alpha)[0] for values in (log_w, moved))
    torch.testing.assert_close(after, before, atol=1e-8, rtol=0)


@settings(deadline=None)
@given(log_weights(), orders())
def test_it_moves_with_log_z_and_the_signal_does_not(log_w: Tensor, alpha: float) -> None:
    shifted = log_w + 321.5
    assert torch.allclose(renyi_bound(shifted, alpha), renyi_bound(log_w, alpha) + 321.5, atol=1e-6, rtol=1e-9)
    assert torch.allclose(renyi_signal(shifted, alpha), renyi_signal(log_w, alpha), atol=1e-6, rtol=1e-9)
    assert renyi_signal(log_w, alpha).isfinite().all()


def test_near_one_it_tends_to_the_elbo() -> None:
    log_w = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double()
    for alpha in (1 - 1e-5, 1 + 1e-5):
        torch.testing.assert_close(renyi_bound(log_w, alpha), log_w.mean(0), atol=1e-4, rtol=0)
        torch.testing.assert_close(renyi_signal(log_w, alpha), renyi_signal(log_w, 1.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(renyi_bound(log_w, 0.0), log_mean_exp(log_w))


def test_no_particles_are_refused() -> None:
    with pytest.raises(ValueError, match="num_particles"):
        attrs.evolve(Renyi(), num_particles=0)
