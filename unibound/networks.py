"""The two networks: each builds a distribution, and is then asked.

Shapes: B batch, *X one datum, *Z one latent.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from unibound.distributions import flows
from unibound.draws import Chain, flat
from unibound.errors import UsageError
from unibound.likelihood import Likelihood


class Inference(nn.Module, ABC):
    """q(tau | x): a network that builds a distribution over all latents of each datum."""

    @abstractmethod
    def forward(self, x: Tensor) -> Distribution:
        """Map x [..., *X] to a distribution of batch shape [...] and event shape [*Z]."""

    def bind(self, p: nn.Module) -> None:
        """Get to know the generative model, once; for a q that optimizes against it, or shares a recurrence.

        What is kept of p must not be registered: its parameters are p's, so that groups stay disjoint.
        """
        del p

    def extended(self, inner: "Inference", size: int) -> "Inference":
        """The same q, and after each of its draws `size` more latents, drawn by `inner` given the top ones."""
        return Extended(self, inner, size)


class Generator(nn.Module, ABC):
    """p(x | tau): a network that builds a distribution over data from each latent."""

    @abstractmethod
    def forward(self, tau: Tensor) -> Distribution:
        """Map tau [..., *Z] to a distribution of batch shape [...] and event shape [*X]."""


class Upward(Inference):
    """q(tau | x) = q(tau_1 | x) q(tau_2 | tau_1) ... q(tau_L | tau_{L-1}), its layers inference networks.

    The pieces are drawn from the datum upwards, each from a draw of the one below, and lie side by side in one
    tensor [..., Z_1 + ... + Z_L]: q of `Layered`.

    Args:
        layers: from the one that sees x to the top; each maps [..., Z_{l-1}] to events of shape [Z_l].
        sizes: Z_1 .. Z_L.
    """

    def __init__(self, layers: Sequence[Inference], sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.sizes = tuple(sizes)

    def forward(self, x: Tensor) -> Distribution:
        first, *rest = self.layers
        return Chain(first(x), [lambda pieces, layer=layer: layer(pieces[-1]) for layer in rest], self.sizes)

    def bind(self, p: nn.Module) -> None:
        for layer in self.layers:
            assert isinstance(layer, Inference)
            layer.bind(p)

    def extended(self, inner: Inference, size: int) -> Inference:
        *below, top = [layer for layer in self.layers if isinstance(layer, Inference)]
        return Upward([*below, top.extended(inner, size)], [*self.sizes[:-1], self.sizes[-1] + size])


class Downward(Inference):
    """q(tau | x) = q(tau_L | x) q(tau_{L-1} | tau_L, x) ... q(tau_1 | tau_2, x): drawn from the top, as p dreams.

    Each layer below the top weighs what it reads from the datum against what p says of it, by their precisions:

        q(tau_l | tau_{l+1}, x) = N(tau_l; (m / s^2 + m' / s'^2) / (1 / s^2 + 1 / s'^2), (1 / s^2 + 1 / s'^2)^(-1))

    with m, s of what is read and m', s' of p(tau_l | tau_{l+1}). So q shares those layers of p, whose gradient through
    q is whole; their parameters stay p's own.

    Args:
        reading: maps x [..., *X] to normals over events [Z_l], lowest first.
        sizes: Z_1 .. Z_L.

    Source: Sonderby, Raiko, Maaloe, Sonderby and Winther, "Ladder variational autoencoders" (2016),
    https://arxiv.org/abs/1602.02282
    """

    def __init__(self, reading: nn.Module, sizes: Sequence[int]) -> None:
        super().__init__()
        self.reading, self.sizes = reading, tuple(sizes)
        self._above: tuple[nn.Module, ...] = ()  # in a tuple, so that their parameters are p's alone

    def bind(self, p: nn.Module) -> None:
        generators = getattr(p, "generators", None)
        if not isinstance(generators, nn.ModuleList) or len(generators) != len(self.sizes):
            raise UsageError(
                f"q goes down through {len(self.sizes)} layers of p, which {type(p).__name__} lacks; give p as many"
            )
        self._above = tuple(generators)[1:]

    def forward(self, x: Tensor) -> Distribution:
        *read, top = self.reading(x)
        rest = [
            lambda pieces, own=own, layer=layer: _weighed(own, layer(pieces[-1]))
            for own, layer in zip(reversed(read), reversed(self._above), strict=True)
        ]
        return Chain(top, rest, self.sizes, downward=True)


def _weighed(one: Distribution, other: Distribution) -> Distribution:
    """The normal distribution that is proportional to the product of two."""
    precision = 1 / one.variance + 1 / other.variance
    mean = (one.mean / one.variance + other.mean / other.variance) / precision
    return Independent(Normal(mean, precision.rsqrt(), validate_args=False), 1, validate_args=False)


def hidden_layers(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of the given widths with an ELU after each."""
    return nn.Sequential(
        *(part for fan_in, fan_out in pairwise(widths) for part in (nn.Linear(fan_in, fan_out), nn.ELU()))
    )


class Bent(Inference):
    """q(tau | x): the posterior of a fully connected network, bent by a flow that sees what the network says beside.

    Args:
        hidden: widths of the network's hidden layers.
        posterior: reads the network's outputs; where the flow begins.
        size: elements of tau.
        layers: the maps of the flow, none or some.
        context: numbers by which each of them sees x.
        x_mean: mean of the data [*X].
        undo: take each map backwards, as it is of those that score in one pass.
    """

    x_mean: Tensor

    def __init__(
        self,
        hidden: Sequence[int],
        posterior: Likelihood,
        size: int,
        layers: nn.ModuleList,
        context: int,
        x_mean: Tensor,
        *,
        undo: bool,
    ) -> None:
        super().__init__()
        self.posterior, self.size, self.x_dims = posterior, size, x_mean.dim()
        widths = [x_mean.numel(), *hidden]
        self.hidden = hidden_layers(widths)
        self.outputs = nn.Linear(widths[-1], math.prod(posterior.outputs((size,))))
        self.context = nn.Linear(widths[-1], context) if layers else None
        self.layers, self.undo = layers, undo
        self.register_buffer("x_mean", x_mean.flatten())

    def forward(self, x: Tensor) -> Distribution:
        units = self.hidden(x.flatten(-self.x_dims) - self.x_mean)  # [..., H]
        outputs = self.outputs(units).unflatten(-1, self.posterior.outputs((self.size,)))
        base = self.posterior(outputs, (self.size,))
        if self.context is None:
            return base
        context = self.context(units)  # [..., C]
        bends = [layer(context) for layer in self.layers]
        return flows.Flow(base, [bend.inv for bend in bends] if self.undo else bends)


class Extended(Inference):
    """q(tau | x) q(h | tau): the latents of a model, and beside them those that its prior keeps of its own.

    Args:
        outer: q(tau | x), whose draws are laid flat.
        inner: q(h | tau), over events of shape [size].
        size: elements of h.
    """

    def __init__(self, outer: Inference, inner: Inference, size: int) -> None:
        super().__init__()
        self.outer, self.inner, self.size = outer, inner, size

    def forward(self, x: Tensor) -> Distribution:
        outer = flat(self.outer(x))
        return Chain(outer, [lambda pieces: self.inner(pieces[0])], (outer.event_shape.numel(), self.size))

    def bind(self, p: nn.Module) -> None:
        self.outer.bind(p)
        self.inner.bind(p)
