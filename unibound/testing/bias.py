"""How far a gradient is from the exact one, on average, where a model is small enough to be listed."""

import copy
import math

import torch
from torch import Tensor, nn

from unibound.errors import UsageError
from unibound.estimator import Estimator
from unibound.joint import JointBound
from unibound.support import values
from unibound.testing import World, expected_gradient, rehearse
from unibound.testing.laws.candidate import objective
from unibound.testing.listing import all_bits, all_states

MAX_BITS = 6  # of latents that are listed
FEW = 4  # data, where not all there could be are listed
MAX_ROWS = 1 << 17  # outcomes of the draws for all data, and of a chain


def bias(joint: JointBound, estimator: Estimator, x: Tensor) -> dict[str, float] | None:
    """Length of (expected gradient - exact gradient) by that of the exact, for each group.

    Exact is the gradient of the estimator's own expected bound, by listing every outcome of its draws. None
    where there are too many, or x that it dreams cannot be listed, or it claims no bound.

    Args:
        x: data [N, *X]; all of them count where every datum there could be can be listed, else a few.
    """
    world = _world(joint, x)
    if world is None:
        return None
    try:
        dry = rehearse(world, estimator, torch.arange(len(world.xs)))
        chains = len(world.taus) if world.joint.p.unnormalized is not None else 1
        if dry.replay.num_rows * chains > MAX_ROWS:
            return None
        rehearsal = rehearse(world, estimator)
        exact_values = objective(world, rehearsal)
    except UsageError:
        return None
    total = rehearsal.mean(torch.ones_like(rehearsal.probability))
    if exact_values is None or not torch.allclose(total, torch.ones_like(total)):
        return None
    exact, got = world.gradient(exact_values[1]), expected_gradient(world, estimator)
    return {
        group: ((got[group] - value).norm() / value.norm()).item() for group, value in exact.items() if value.norm() > 0
    }


def _world(joint: JointBound, x: Tensor) -> World | None:
    """The model as a world in float64, without dropout, its data weighed evenly; None if it is too large."""
    joint, x = copy.deepcopy(joint).cpu().double().train(), x.cpu().double()
    over, listed = joint.p.support, values(joint.p.support)
    if listed is None:
        return None
    with torch.random.fork_rng(devices=[]):
        shape = tuple(joint.q(x[:1]).event_shape)
        joint.advance()
    if math.prod(shape) * math.log2(len(listed)) > MAX_BITS:
        return None
    for module in joint.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    taus, (xs, log_data) = all_states(over, shape), _data(x)
    return World(joint, xs, log_data, taus, torch.zeros(len(taus)).double(), None)


def _data(x: Tensor) -> tuple[Tensor, Tensor]:
    """Every datum there could be, with the log of its frequency, where they can be listed; else a few, evenly."""
    if x[0].numel() <= MAX_BITS and torch.equal(x * x, x):
        xs = all_bits(tuple(x.shape[1:]))
        number = (x.flatten(1).long() << torch.arange(x[0].numel())).sum(1)
        return xs, (torch.bincount(number, minlength=len(xs)).double() / len(x)).log()
    return x[:FEW], torch.full((len(x[:FEW]),), -math.log(len(x[:FEW]))).double()
