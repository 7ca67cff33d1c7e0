"""Hierarchical variational autoencoders: layers of normals with networks between, read upwards or down a ladder."""

import math
from itertools import pairwise
from typing import Literal

import attrs
import torch
from attrs.validators import deep_iterable, ge, min_len
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import softplus

from unibound import (
    Downward,
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
from unibound.support import boolean, real, same

ACTIVATIONS = {"tanh": nn.Tanh, "elu": nn.ELU, "relu": nn.ReLU}
FLOOR = 1e-3  # smallest standard deviation
RARE = 0.01  # rates of pixels are kept so far from 0 and 1, where the logit that starts a bias is infinite


def stack(fan_in: int, width: int, depth: int, activation: str) -> nn.Sequential:
    """Hidden layers of one width, each with an activation."""
    widths = [fan_in, *[width] * depth]
    return nn.Sequential(*(part for a, b in pairwise(widths) for part in (nn.Linear(a, b), ACTIVATIONS[activation]())))


def normals(outputs: Tensor) -> Distribution:
    """Independent normals by their means and scales before a softplus: [..., 2 Z] to events [Z]."""
    mean, raw = outputs.chunk(2, -1)
    return Independent(Normal(mean, FLOOR + softplus(raw), validate_args=False), 1, validate_args=False)


class Up(Inference):
    """q(tau_l | tau_{l-1}), or q(tau_1 | x) from the centered datum."""

    center: Tensor

    def __init__(self, center: Tensor, body: nn.Sequential, width: int, size: int) -> None:
        super().__init__()
        self.dims = center.dim()
        self.register_buffer("center", center.flatten().clone())
        self.network = nn.Sequential(*body, nn.Linear(width, 2 * size))

    def forward(self, x: Tensor) -> Distribution:
        return normals(self.network(x.flatten(-self.dims) - self.center))


class Reading(nn.Module):
    """What each layer reads from the datum, through deterministic layers only."""

    center: Tensor

    def __init__(self, center: Tensor, bodies: list[nn.Sequential], widths: list[int], sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.dims = center.dim()
        self.register_buffer("center", center.flatten().clone())
        self.bodies = nn.ModuleList(bodies)
        self.heads = nn.ModuleList(nn.Linear(width, 2 * size) for width, size in zip(widths, sizes, strict=True))

    def forward(self, x: Tensor) -> list[Distribution]:
        hidden, found = x.flatten(-self.dims) - self.center, []
        for body, head in zip(self.bodies, self.heads, strict=True):
            hidden = body(hidden)
            found.append(normals(head(hidden)))
        return found


class Down(Generator):
    """p(tau_l | tau_{l+1}), or p(x | tau_1) by a likelihood."""

    def __init__(self, body: nn.Sequential, width: int, likelihood: Likelihood | None, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.likelihood, self.shape = likelihood, shape
        outputs = 2 * math.prod(shape) if likelihood is None else math.prod(likelihood.outputs(shape))
        self.network = nn.Sequential(*body, nn.Linear(width, outputs))

    def forward(self, tau: Tensor) -> Distribution:
        outputs = self.network(tau)
        if self.likelihood is None:
            return normals(outputs)
        return self.likelihood(outputs.unflatten(-1, self.likelihood.outputs(self.shape)), self.shape)


@attrs.frozen
class Ladder(Model):
    """A hierarchy of normal latents, tau_1 above the datum to tau_L, with a network of its own between each two.

        p(x, tau) = p(tau_L) p(tau_{L-1} | tau_L) ... p(x | tau_1)

    Read downwards, a ladder, q draws the top first, from the datum, and each layer below weighs what it reads against
    what p says of it; every term of the bound but the datum's is then minus a divergence. Read upwards, each layer of q
    sees a draw of the one below, and upper layers tend to carry nothing; a middle term may be positive. The prior is
    that of the top layer, over reals.

    Args:
        sizes: latents of each layer, from the one above the datum to the top, which is the prior's.
        hidden: width of the hidden layers below each layer of latents, on both sides; one for each.
        depth: hidden layers between two layers of latents.
        activation: nonlinearity of the hidden layers.
        reading: downwards, as a ladder, or upwards.

    Source: Sonderby, Raiko, Maaloe, Sonderby and Winther, "Ladder variational autoencoders" (2016),
    https://arxiv.org/abs/1602.02282; upwards, in two layers, Burda, Grosse and Salakhutdinov, "Importance weighted
    autoencoders" (2016), https://arxiv.org/abs/1509.00519
    """

    sizes: tuple[int, ...] = attrs.field(default=(20, 10), validator=[min_len(1), deep_iterable(ge(1))])
    hidden: tuple[int, ...] = attrs.field(default=(64, 32), validator=[min_len(1), deep_iterable(ge(1))])
    depth: int = attrs.field(default=2, validator=ge(1))
    activation: Literal["tanh", "elu", "relu"] = "tanh"
    reading: Literal["downwards", "upwards"] = "downwards"

    def __attrs_post_init__(self) -> None:
        if len(self.sizes) != len(self.hidden):
            raise UsageError(
                f"ladder: {len(self.sizes)} layers of latents have hidden layers below each, but hidden has "
                f"{len(self.hidden)} widths; give one for each of sizes"
            )

    def prior_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.sizes[-1],)

    def assemble(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        if prior.support is None or not same(prior.support, real):
            raise UsageError(
                f"ladder has latents over reals, but its prior is {type(prior).__name__.lower()}; use gaussian"
            )
        shape = tuple(x_mean.shape)
        below = [(likelihood, shape), *((None, (size,)) for size in self.sizes[:-1])]
        above = [stack(*ends, self.depth, self.activation) for ends in zip(self.sizes, self.hidden, strict=True)]
        down = [Down(body, width, *what) for body, width, what in zip(above, self.hidden, below, strict=True)]
        last = down[0].network[-1]
        if same(likelihood.support, boolean) and likelihood.outputs(shape) == shape and isinstance(last, nn.Linear):
            with torch.no_grad():
                last.bias.copy_(x_mean.flatten().clamp(RARE, 1 - RARE).logit())
        return JointBound(self._q(x_mean), Layered(prior, down, self.sizes))

    def _q(self, x_mean: Tensor) -> Inference:
        upwards = self.reading == "upwards"
        inputs = [x_mean.numel(), *(self.sizes if upwards else self.hidden)[:-1]]
        bodies = [stack(a, b, self.depth, self.activation) for a, b in zip(inputs, self.hidden, strict=True)]
        if not upwards:
            return Downward(Reading(x_mean, bodies, list(self.hidden), self.sizes), self.sizes)
        centers = [x_mean, *(torch.zeros(size) for size in self.sizes[:-1])]
        return Upward([Up(*layer) for layer in zip(centers, bodies, self.hidden, self.sizes, strict=True)], self.sizes)


@hookimpl
def register_models(register):
    register("ladder", Ladder)
