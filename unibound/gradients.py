"""How good a gradient is: its noise over repeated estimates, and its bias where everything can be listed."""

import copy
import math

import attrs
import torch
from torch import Tensor, nn

from unibound.errors import UsageError
from unibound.estimator import Estimator
from unibound.joint import Directed, JointBound
from unibound.testing import World, expected_gradient, rehearse
from unibound.testing.laws.candidate import objective
from unibound.testing.worlds import all_bits

MAX_BITS = 6  # of latents that are listed
FEW = 4  # data, where not all there could be are listed
MAX_ROWS = 1 << 16  # outcomes of the draws for all data


@attrs.frozen
class Noise:
    """Mean and spread of a group's gradient over repeated estimates.

    Args:
        variance: trace of the covariance.
        signal: squared length of the mean, less what noise adds to it.
    """

    variance: float
    signal: float

    @property
    def snr(self) -> float:
        """Signal-to-noise ratio: length of the mean gradient over the root of the variance."""
        return math.sqrt(max(self.signal, 0.0) / self.variance) if self.variance > 0 else math.inf


def noise(joint: JointBound, estimator: Estimator, x: Tensor, repeats: int) -> dict[str, Noise]:
    """Noise of each group's gradient on a fixed batch x [B, *X], with what the joint is left as it was.

    Every repetition is a training step but for the update: chains move, dropout drops.

    Args:
        joint: with the estimator's auxiliary.
        repeats: how many estimates, at least 2.
    """
    joint = copy.deepcopy(joint).train()
    mean: dict[str, Tensor] = {}
    spread: dict[str, Tensor] = {}
    for count in range(1, repeats + 1):
        for group, gradient in _gradients(joint, estimator, x).items():
            before = mean.setdefault(group, torch.zeros_like(gradient))
            deviation = gradient - before
            mean[group] = before + deviation / count
            spread[group] = spread.get(group, 0.0) + deviation * (gradient - mean[group])
    variances = {group: value.sum().item() / (repeats - 1) for group, value in spread.items()}
    return {
        group: Noise(variance, mean[group].square().sum().item() - variance / repeats)
        for group, variance in variances.items()
    }


def _gradients(joint: JointBound, estimator: Estimator, x: Tensor) -> dict[str, Tensor]:
    """One estimate of the gradient of each group that gets one, flattened, in float64."""
    if estimator.persistent:
        joint.advance()
    joint.zero_grad()
    estimator(joint, x).surrogate.mean().backward()
    found = {
        group: [parameter.grad.double().flatten() for parameter in module.parameters() if parameter.grad is not None]
        for group, module in joint.parts().items()
        if group != "auxiliary"
    }
    return {group: torch.cat(parts) for group, parts in found.items() if parts}


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
        if dry.replay.num_rows > MAX_ROWS:
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
    if not isinstance(joint.p, Directed) or joint.p.prior.posterior != "bernoulli":
        return None
    shape = tuple(joint.p.prior.event_shape)
    if math.prod(shape) > MAX_BITS:
        return None
    joint = copy.deepcopy(joint).cpu().double().train()
    for module in joint.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    taus, (xs, log_data) = all_bits(shape), _data(x.double().cpu())
    return World(joint, xs, log_data, taus, torch.zeros(len(taus)).double(), None)


def _data(x: Tensor) -> tuple[Tensor, Tensor]:
    """Every datum there could be, with the log of its frequency, where they can be listed; else a few, evenly."""
    if x[0].numel() <= MAX_BITS and torch.equal(x * x, x):
        xs = all_bits(tuple(x.shape[1:]))
        number = (x.flatten(1).long() << torch.arange(x[0].numel())).sum(1)
        return xs, (torch.bincount(number, minlength=len(xs)).double() / len(x)).log()
    return x[:FEW], torch.full((len(x[:FEW]),), -math.log(len(x[:FEW]))).double()
