"""Sigmoid belief nets: layers of latents above one another, joined by linear maps, on both sides."""

import math
from itertools import pairwise
from typing import Literal

import attrs
import torch
from attrs.validators import deep_iterable, ge, min_len
from torch import Tensor, nn
from torch.distributions import Distribution, Normal
from torch.nn.functional import softplus

from unibound import (
    Generator,
    Inference,
    JointBound,
    Layered,
    Likelihood,
    Model,
    Prior,
    Upward,
    UsageError,
    hookimpl,
)
from unibound.distributions import Bits, Normals
from unibound.support import boolean, real, same

RARE = 0.01  # rates of pixels are kept so far from 0 and 1, where the logit that starts a bias is infinite
SMALL = 0.01  # standard deviation of weights that are tied
FLOOR = 1e-3  # smallest standard deviation of a unit over reals


@attrs.frozen
class BitUnits(Likelihood):
    """Latents that are bits, and a network's outputs their logits."""

    support = boolean

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        return Bits(outputs, len(event_shape))


@attrs.frozen
class RealUnits(Likelihood):
    """Latents that are normal, and a network's outputs their means and scales before a softplus."""

    support = real

    def outputs(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2, *event_shape)

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        mean, raw = outputs.unbind(-len(event_shape) - 1)
        normal = Normal(mean, FLOOR + softplus(raw), validate_args=False)
        return Normals(normal, len(event_shape), validate_args=False)


UNITS: dict[str, Likelihood] = {"bits": BitUnits(), "reals": RealUnits()}


class Up(Inference):
    """q(tau_l | tau_{l-1}) by one linear map; the datum is centered, latents are not."""

    center: Tensor

    def __init__(self, center: Tensor, units: Likelihood, size: int) -> None:
        super().__init__()
        self.units, self.size, self.dims = units, size, center.dim()
        self.register_buffer("center", center.flatten().clone())
        self.linear = nn.Linear(center.numel(), math.prod(units.outputs((size,))))

    def forward(self, x: Tensor) -> Distribution:
        flat = x.flatten(-self.dims) - self.center
        outputs = self.linear(flat).view(*flat.shape[:-1], *self.units.outputs((self.size,)))
        return self.units(outputs, (self.size,))


class Down(Generator):
    """p(tau_{l-1} | tau_l), or p(x | tau_1), by one linear map."""

    def __init__(self, size: int, units: Likelihood, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.units, self.shape = units, shape
        self.linear = nn.Linear(size, math.prod(units.outputs(shape)))

    def forward(self, tau: Tensor) -> Distribution:
        outputs = self.linear(tau).view(*tau.shape[:-1], *self.units.outputs(self.shape))
        return self.units(outputs, self.shape)


@attrs.frozen
class SBN(Model):
    """A sigmoid belief net of any depth: q goes up layer by layer, p down, each step a linear map and noise.

        q(tau | x) = q(tau_1 | x) q(tau_2 | tau_1) ...,   p(x, tau) = p(tau_L) p(tau_{L-1} | tau_L) ... p(x | tau_1)

    The prior is that of the top layer, and may be any: with `rbm` this is a deep belief net, with `gaussian` and real
    units a linear hierarchy of normals. Particles run through all layers, K in all and not K per layer. The bias of a
    pixel starts at its rate in the training data, without which training stalls where pixels are independent.

    Args:
        sizes: latents of each layer, from the one above the datum to the top, which is the prior's.
        units: what the layers below the top are made of: bits or reals.
        tied: begin with the weights of q those of p, transposed, small, and data not centered, for `greedy` stages; no
            other estimator keeps them so.

    Source: Neal, "Connectionist learning of belief networks" (1992), https://doi.org/10.1016/0004-3702(92)90065-6;
    with a q that is trained beside it, Mnih and Gregor, "Neural variational inference and learning in belief
    networks" (2014), https://arxiv.org/abs/1402.0030
    """

    sizes: tuple[int, ...] = attrs.field(default=(50, 20), validator=[min_len(1), deep_iterable(ge(1))])
    units: Literal["bits", "reals"] = "bits"
    tied: bool = False

    def prior_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.sizes[-1],)

    def assemble(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        if self.tied and not all(
            same(one.support, boolean) for one in (likelihood, posterior, *[UNITS[self.units]] * (len(self.sizes) > 1))
        ):
            raise UsageError(
                "sbn: tied weights are those of restricted Boltzmann machines, of bits alone; leave tied out"
            )
        units = [UNITS[self.units]] * (len(self.sizes) - 1)
        centers = [x_mean * (not self.tied), *(torch.zeros(size) for size in self.sizes[:-1])]
        up = [Up(*layer) for layer in zip(centers, [*units, posterior], self.sizes, strict=True)]
        bottom = Down(self.sizes[0], likelihood, tuple(x_mean.shape))
        down = [Down(above, unit, (size,)) for (size, above), unit in zip(pairwise(self.sizes), units, strict=True)]
        if same(likelihood.support, boolean) and likelihood.outputs(bottom.shape) == bottom.shape:
            with torch.no_grad():
                bottom.linear.bias.copy_(x_mean.flatten().clamp(RARE, 1 - RARE).logit())
        if self.tied:
            _tie(up, [bottom, *down])
        return JointBound(Upward(up, self.sizes), Layered(prior, [bottom, *down], self.sizes))


@torch.no_grad()
def _tie(up: list[Up], down: list[Down]) -> None:
    """Give each layer of q and p one small weight, and q no bias."""
    for lower, upper in zip(up, down, strict=True):
        lower.linear.weight.normal_(std=SMALL)
        lower.linear.bias.zero_()
        upper.linear.weight.copy_(lower.linear.weight.mT)


@hookimpl
def register_models(register):
    register("sbn", SBN)
