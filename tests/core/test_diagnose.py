"""What diagnosis says of worlds where it is known."""

import math

import attrs
import pytest
import torch
from torch import Tensor

from unibound import Estimate, Estimator, JointBound, UsageError
from unibound.evaluation.diagnose import diagnose, gradient_noise
from unibound.testing.replay import expected_gradient, variance
from unibound.testing.verdict import FALSE_ALARM
from unibound.testing.worlds import World
from unibound.weights import log_mean_exp, vimco_signal


@attrs.frozen
class Vimco(Estimator):
    """VIMCO, the shortest way."""

    num_particles: int = 3

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        particles = joint.particles(x, self.num_particles)
        log_w = particles.log_weights
        signal, bound = vimco_signal(log_w.detach()), log_mean_exp(log_w)
        surrogate = -(signal * particles.log_q).sum(0) - bound
        return Estimate(surrogate, bound.detach(), log_w.detach(), "lower")


def test_the_gap_and_the_weights_of_a_world():
    torch.manual_seed(0)
    world = World.of_bits()
    found = diagnose(world.joint, Vimco(), world.xs.repeat(500, 1), num_particles=4, repeats=2)
    exact = (world.bound(4) - world.bound(2)).mean().item()
    assert abs(found.gap - exact) < FALSE_ALARM * found.gap_stderr
    assert found.ess.shape == (4000,)
    assert 1 - 1e-9 <= found.ess.min() <= found.ess.max() <= 4 + 1e-9
    assert found.tail.isnan().all()
    assert math.isnan(found.heavy)


def test_gradient_noise_is_that_of_the_estimator():
    torch.manual_seed(0)
    world = World.of_bits()
    x = world.xs[torch.multinomial(world.log_data.exp(), 1)]
    found = gradient_noise(world.joint, Vimco(), x, repeats=1500)
    single = attrs.evolve(world, xs=x, log_data=torch.zeros(1, dtype=torch.float64))
    expected = expected_gradient(single, Vimco())
    for name, group in found.items():
        exact = variance(single, Vimco(), name)
        assert group.variance == pytest.approx(exact, rel=0.2)
        assert group.signal_to_noise == pytest.approx(expected[name].norm().item() / exact**0.5, rel=0.25, abs=0.03)


def test_idle_units_are_not_active():
    torch.manual_seed(0)
    world = World.of_bits()
    network = next(iter(world.joint.q.children()))
    last = list(network.children())[-1]
    with torch.no_grad():
        last.weight[0] = 0
        last.weight[1] *= 5
    found = diagnose(world.joint, Vimco(), world.xs.repeat(20, 1), num_particles=200, repeats=2)
    assert (found.active, found.units) == (1, 2)


def test_it_leaves_gradients_and_mode_alone():
    world = World.of_bits()
    diagnose(world.joint, Vimco(), world.xs, num_particles=30, repeats=2)
    assert world.joint.training
    assert all(parameter.grad is None for parameter in world.joint.parameters())


@pytest.mark.parametrize(("count", "particles", "repeats"), [(1, 5, 5), (5, 1, 5), (5, 5, 1)])
def test_too_little_to_go_by(count: int, particles: int, repeats: int):
    world = World.of_bits()
    with pytest.raises(UsageError, match="at least"):
        diagnose(world.joint, Vimco(), world.xs[:count], num_particles=particles, repeats=repeats)
