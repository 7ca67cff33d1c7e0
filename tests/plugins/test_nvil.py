"""NVIL: unbiased whatever its baseline says, and judged only by what was known before."""

import copy

import attrs
import pytest
import torch
from unibound_plugins.estimators.nvil import NVIL, Baseline
from unibound_plugins.priors.rbm import RBM

from unibound import Estimator, JointBound, UsageError
from unibound.testing import Replay, World, expected_bound, expected_gradient, rehearse
from unibound.testing.listing import gradients

TOLERANCE = 1e-9
WORLDS = {"bits": lambda: World.of_bits(4), "rbm": lambda: World.of_bits(5, RBM((2,), num_hidden=3))}


@attrs.frozen(eq=False)
class Seasoned(Estimator):
    """nvil, begun with a baseline that has seen some batches."""

    baseline: Baseline
    nvil: NVIL

    def __call__(self, joint, x):
        return self.nvil(joint, x)

    def auxiliary(self, joint, x):
        return copy.deepcopy(self.baseline)


def seasoned(world, nvil, steps):
    joint = JointBound(world.joint.q, world.joint.p)
    joint.auxiliary = nvil.auxiliary(joint, world.xs).double()
    for _ in range(steps):
        nvil(joint, world.xs)
    return Seasoned(joint.auxiliary, nvil)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("num_particles", [1, 2])
def test_expected_gradient_is_that_of_the_elbo(world, num_particles):
    world = WORLDS[world]()
    got = expected_gradient(world, NVIL(num_particles=num_particles))
    for group, exact in world.gradient(world.bound(1)).items():
        torch.testing.assert_close(got[group], exact, rtol=0, atol=TOLERANCE)


def test_later_only_the_length_of_qs_step_differs():
    torch.manual_seed(0)
    world = World.of_bits(4)
    world.p.generator.network[2].weight.data *= 4  # a signal of several nats
    estimator = seasoned(world, NVIL(), steps=20)
    scale = estimator.baseline.variance.sqrt().item()
    assert scale > 1
    got, exact = expected_gradient(world, estimator), world.gradient(world.bound(1))
    torch.testing.assert_close(got["q"], exact["q"] / scale, rtol=0, atol=TOLERANCE)
    for group in ("generator", "prior"):
        torch.testing.assert_close(got[group], exact[group], rtol=0, atol=TOLERANCE)


def test_bound_is_the_elbo():
    world = World.of_bits(4)
    torch.testing.assert_close(expected_bound(world, NVIL()), world.bound(1).detach(), rtol=0, atol=TOLERANCE)


def test_a_batch_is_judged_by_previous_batches_only():
    """The same draws are given the same gradient whoever else is in the batch."""
    world = World.of_bits(4)
    whole = rehearse(world, NVIL())
    part = rehearse(world, NVIL(), torch.arange(5))
    torch.testing.assert_close(part.estimate.surrogate, whole.estimate.surrogate[:5], rtol=0, atol=TOLERANCE)


def test_the_baseline_is_taught_by_least_squares_alone():
    world = World.of_bits(4)
    rehearsal = rehearse(world, NVIL())
    baseline = rehearsal.replay.joint.auxiliary
    groups = {"auxiliary": list(baseline.parameters())}
    error = rehearsal.estimate.log_weights - baseline.network(world.xs[rehearsal.datum]).squeeze(1)
    exact = gradients((error.square() / 2).sum(), groups)["auxiliary"]
    got = gradients(rehearsal.estimate.surrogate.sum(), groups)["auxiliary"]
    torch.testing.assert_close(got, exact, rtol=0, atol=TOLERANCE)


def test_small_signals_are_not_blown_up():
    baseline = Baseline(4, 3, decay=0.9)
    x, log_w = torch.rand(5, 4), torch.randn(2, 5)
    before = baseline(x, log_w)
    baseline.variance.fill_(0.01)
    torch.testing.assert_close(baseline(x, log_w), before)
    baseline.variance.fill_(4.0)
    torch.testing.assert_close(baseline(x, log_w) - before, -log_w / 2)


def test_running_mean_and_scale_find_those_of_the_signal():
    torch.manual_seed(0)
    baseline = Baseline(4, 3, decay=0.9).double()
    for step in range(200):
        baseline.update(-40 + 7 * torch.randn(3, 500, dtype=torch.float64))
        if step == 0:
            assert baseline.mean.item() == pytest.approx(-40, abs=1)
    assert baseline.mean.item() == pytest.approx(-40, abs=0.5)
    assert baseline.variance.sqrt().item() == pytest.approx(7, rel=0.05)
    assert baseline.num_batches.item() == 200


def test_a_trained_baseline_lowers_the_variance():
    torch.manual_seed(0)
    world, nvil = World.of_bits(4), NVIL(num_particles=4, hidden=20)
    joint = JointBound(world.joint.q, world.joint.p)
    joint.auxiliary = nvil.auxiliary(joint, world.xs).double()
    optimizer = torch.optim.Adam(joint.auxiliary.parameters(), 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        nvil(joint, world.xs.repeat(4, 1)).surrogate.mean().backward()
        optimizer.step()

    def spread(baseline):
        """Exact second moment of q's gradient."""
        replay = Replay(world, torch.arange(len(rehearse(world, NVIL()).datum)))
        replay.joint.auxiliary = baseline
        surrogate = NVIL()(replay.joint, world.xs[replay.datum]).surrogate
        rows = torch.stack([gradients(value, {"q": world.groups()["q"]})["q"] for value in surrogate])
        weight = replay.log_prob.exp() * world.log_data.exp()[replay.datum]
        return (weight.unsqueeze(1) * rows.square()).sum().item()

    blind = copy.deepcopy(joint.auxiliary)  # knows the running mean, and nothing of x
    for parameter in blind.parameters():
        parameter.data.zero_()
    assert spread(joint.auxiliary) < 0.8 * spread(blind)


def test_the_baseline_is_asked_for():
    world = World.of_bits(4)
    with pytest.raises(UsageError, match="auxiliary"):
        NVIL()(JointBound(world.joint.q, world.joint.p), world.xs)
    assert NVIL(hidden=7).auxiliary(world.joint, torch.rand(2, 3, 5)).network[0].weight.shape == (7, 15)
