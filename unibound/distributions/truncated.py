"""Normals of which only what is above zero is left."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.special import log_ndtr
from torch.types import _size

FAR, NEWTON = -30.0, 5
"""log-probability of a tail from where on it is found in logs, by so many steps of Newton's method."""


class Rectified(Distribution):
    """A normal truncated to [0, inf): batch shape [...], one real per event.

        p(x) = N(x; m, s^2) / Phi(m / s),   x >= 0

    Args:
        mean: m [...], of the normal before it is truncated.
        scale: s [...], positive; broadcasts against the mean.
    """

    support = constraints.nonnegative  # pyright: ignore
    arg_constraints = {}  # noqa: RUF012 - the name torch.distributions looks up  # pyright: ignore
    has_rsample = False

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        self.normal_mean, self.scale = torch.broadcast_tensors(mean, scale)
        super().__init__(self.normal_mean.shape, validate_args=False)

    def expand(self, batch_shape: _size, _instance: object = None) -> "Rectified":
        return Rectified(self.normal_mean.expand(batch_shape), self.scale.expand(batch_shape))

    @property
    def mean(self) -> Tensor:
        ratio = self.normal_mean / self.scale
        log_hazard = -ratio.square() / 2 - math.log(2 * math.pi) / 2 - log_ndtr(ratio)
        return self.normal_mean + self.scale * log_hazard.exp()

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Solve log Phi(-z) = log u + log Phi(m / s) for z: exact, however far in the tail zero lies."""
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            ratio = (self.normal_mean / self.scale).double()
            uniform = 1 - torch.rand(shape, dtype=torch.float64, device=ratio.device)  # never 0
            target = uniform.log() + log_ndtr(ratio)  # [...]
            z = -torch.special.ndtri(target.exp())
            if bool((far := target < FAR).any()):
                z[far] = _tail(target[far])
            return (self.scale * (z + ratio)).clamp(min=0).to(self.scale)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value) [...] in nats; value broadcasts against the parameters."""
        z = (value - self.normal_mean) / self.scale
        own = -z.square() / 2 - math.log(2 * math.pi) / 2 - self.scale.log() - log_ndtr(self.normal_mean / self.scale)
        return own.masked_fill(value < 0, -math.inf)


def _tail(target: Tensor) -> Tensor:
    """z with log Phi(-z) = target, for targets far below zero."""
    z = (-2 * target).sqrt()
    for _ in range(NEWTON):  # log Phi is concave, so that the steps approach z from above and never pass it
        level = log_ndtr(-z)
        z = z + (level - target) * (z.square() / 2 + math.log(2 * math.pi) / 2 + level).exp()
    return z
