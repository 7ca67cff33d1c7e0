"""VIMCO: its expected gradient is exactly that of L_K, and its baseline lowers the exact variance."""

import attrs
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from unibound import Estimate, Estimator, JointBound, registries
from unibound.testing import World, expected_bound, expected_gradient, variance
from unibound.testing.priors import Rates, Table
from unibound.testing.strategies import log_weights
from unibound.weights import log_mean_exp, vimco_signal

vimco = pytest.importorskip("unibound_plugins.estimators.vimco")


def worlds_of(seed: int) -> dict[str, World]:
    priors = registries()["prior"]
    return {
        "rates": World.of_bits(seed, Rates((2,))),
        "table": World.of_bits(seed, Table((2,))),
        "bernoulli": World.of_bits(seed, priors["bernoulli"]((2,))),
        "rbm": World.of_bits(seed, priors["rbm"]((2,), num_hidden=3)),
    }


@attrs.frozen
class NoBaseline(Estimator):
    """VIMCO without its baseline: as unbiased, and noisier."""

    num_particles: int = 2

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        particles = joint.particles(x, self.num_particles)
        bound = log_mean_exp(particles.log_weights)
        surrogate = -((bound.detach() * particles.log_q).sum(0) + bound)
        return Estimate(surrogate, bound.detach(), particles.log_weights.detach(), "lower")


@pytest.mark.parametrize("prior", ["rates", "table", "bernoulli", "rbm"])
@pytest.mark.parametrize("num_particles", [2, 3, 4])
def test_expected_gradient_is_exact(prior: str, num_particles: int) -> None:
    for seed in (0, 1):
        world = worlds_of(seed)[prior]
        estimator = vimco.VIMCO(num_particles=num_particles)
        bound = world.bound(num_particles)
        torch.testing.assert_close(expected_bound(world, estimator) - world.log_z(), bound, atol=1e-9, rtol=0)
        got, exact = expected_gradient(world, estimator), world.gradient(bound)
        assert set(exact) == {"q", "generator", "prior"}
        for group, gradient in exact.items():
            assert gradient.norm() > 1e-3
            torch.testing.assert_close(got[group], gradient, atol=1e-9, rtol=0)


@pytest.mark.parametrize("prior", ["rates", "rbm"])
@pytest.mark.parametrize("num_particles", [2, 3])
def test_baseline_lowers_the_exact_variance(prior: str, num_particles: int) -> None:
    world = worlds_of(0)[prior]
    with_baseline, without = (
        variance(world, estimator, "q") for estimator in (vimco.VIMCO(num_particles), NoBaseline(num_particles))
    )
    assert with_baseline < 0.8 * without


def test_one_particle_is_refused() -> None:
    with pytest.raises(ValueError, match="num_particles must be at least 2"):
        vimco.VIMCO(num_particles=1)
    with pytest.raises(ValueError, match="at least 2"):
        vimco_signal(torch.zeros(1, 3))


@settings(max_examples=300)
@given(log_weights())
def test_coefficients_are_finite_and_shift_invariant(log_w: Tensor) -> None:
    signal = vimco_signal(log_w)
    assert signal.isfinite().all()
    torch.testing.assert_close(vimco_signal(log_w + 321.5), signal, atol=1e-7, rtol=1e-9)
    torch.testing.assert_close(vimco_signal(log_w.flip(0)), signal.flip(0), atol=1e-7, rtol=1e-9)
    assert (vimco_signal(log_w.float()).isfinite()).all()


@settings(max_examples=100)
@given(log_weights(largest=50.0))
def test_a_particle_does_not_see_itself(log_w: Tensor) -> None:
    moved = log_w.clone()
    moved[0] += 3.25
    baseline, after = (log_mean_exp(values) - vimco_signal(values) for values in (log_w, moved))
    torch.testing.assert_close(after[0], baseline[0], atol=1e-9, rtol=0)


def test_permuting_particles_permutes_coefficients() -> None:
    log_w = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(vimco_signal(log_w[order]), vimco_signal(log_w)[order])
