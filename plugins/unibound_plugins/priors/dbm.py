"""A deep Boltzmann machine: layers of bits joined each to the next, every other layer summed out."""

import math
from collections.abc import Sequence
from itertools import pairwise
from types import MappingProxyType

import attrs
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import softplus

from unibound import Inference, UsageError, hookimpl
from unibound.distributions import Bits
from unibound.energies.bipartite import Bipartite
from unibound.settled import settle


class MeanField(Inference):
    """q(h_2, h_4, ... | v): independent bits where mean field over all hidden layers comes to rest; no parameters."""

    def __init__(self, dbm: "DBM") -> None:
        super().__init__()
        self._dbm = (dbm,)  # in a tuple, so that its parameters are the prior's alone

    def forward(self, x: Tensor) -> Distribution:
        return Bits(torch.cat(self._dbm[0].mean_field(x)[1::2], -1))


@attrs.frozen
class _Doubled:
    """Two layers as a machine of their own, with so many copies of either, each joined to all of the other.

    -E = sum_ij (v_i - o)'W(h_j - o') + sum_i b'v_i + sum_j c'h_j
    """

    weight: Tensor  # W [V, H]
    low: Tensor  # b [V]
    high: Tensor  # c [H]
    low_offset: Tensor
    high_offset: Tensor
    lows: int
    highs: int

    def _field(self, v: Tensor) -> Tensor:
        return (v - self.low_offset).sum(0) @ self.weight  # [M, H]

    def free_energy(self, v: Tensor) -> Tensor:
        """Of the lower copies [C, M, V], the upper ones summed out: [M] nats."""
        field = self._field(v)
        upper = softplus(field + self.high).sum(-1) - field @ self.high_offset
        return -(v @ self.low).sum(0) - self.highs * upper

    def up(self, v: Tensor) -> Tensor:
        """Draw the upper copies [C', M, H] given the lower ones [C, M, V]."""
        return Bits(self._field(v) + self.high).sample((self.highs,))

    def down(self, h: Tensor) -> Tensor:
        """Draw the lower copies given the upper ones."""
        return Bits((h - self.high_offset).sum(0) @ self.weight.mT + self.low).sample((self.lows,))


class DBM(Bipartite):
    """p(v, h) = exp(sum_l h_l' W_l h_{l+1} + sum_l b_l' h_l) / Z, with h_0 = v; v is what the model below sees.

        F(v, h_2, h_4, ...) = -sum_{l even} b_l' h_l - sum_{l odd} sum softplus(b_l + h_{l-1} W_{l-1} + W_l h_{l+1})

    Odd layers are summed out, so that this is a restricted Boltzmann machine between even layers and odd ones. The
    even hidden layers are latents of the prior's own: its state is (v, h_2, h_4, ...), and q draws them from mean field
    over all hidden layers, a fixed number of sweeps layer by layer, held still in gradients. With model `identity` this
    is a deep Boltzmann machine of the data, and the K-particle bound over h_2 is tighter than that of mean field, the
    number that is usually printed. With log Z by annealing alone, either is flattered, and has no side.

    It may begin layer by layer (`contrast`, stages of cd with a layer): the first two layers as a machine that sees
    each datum twice, the last two as one whose upper layer is there twice, and any others with both twice, so that a
    unit between two layers hears from one of them alone as much as it will hear from both.

    Args:
        event_shape: shape [*Z] of one latent v.
        hidden: units of each hidden layer, at least two layers.
        num_chains: persistent chains M, of the even layers together.
        steps: block Gibbs steps of every chain per training step.
        num_replicas: temperatures at which the chains are kept, evenly from 0 to 1; neighbors swap after each step.
        sweeps: of mean field, through all hidden layers.
        centered: write each product as (h_l - o_l)' W_l (h_{l+1} - o_{l+1}), o the rates of the data, or 1/2 above: the
            same distributions, with gradients that do not go through the biases.
        init_scale: standard deviation of the initial weights.

    Source: Salakhutdinov and Hinton, "Deep Boltzmann machines" (2009),
    https://proceedings.mlr.press/v5/salakhutdinov09a.html; centering, Montavon and Mueller, "Deep Boltzmann machines
    and the centering trick" (2012), https://doi.org/10.1007/978-3-642-35289-8_33
    """

    small = MappingProxyType({"hidden": (3, 2)})

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        hidden: tuple[int, ...] = (64, 32),
        num_chains: int = 100,
        steps: int = 5,
        num_replicas: int = 1,
        sweeps: int = 10,
        centered: bool = False,
        init_scale: float = 0.01,
    ) -> None:
        if len(hidden) < 2 or min(hidden) < 1:
            raise UsageError(
                f"dbm: hidden must be two layers or more, of 1 unit at least, not {list(hidden)}; or use rbm"
            )
        if sweeps < 1:
            raise UsageError(f"dbm: sweeps must be at least 1, not {sweeps}")
        sizes = [math.prod(event_shape), *hidden]
        super().__init__(
            [sum(sizes[::2])],
            num_chains=num_chains,
            steps=steps,
            num_replicas=num_replicas,
            event_shape=event_shape,
        )
        self.sizes, self.sweeps, self.centered = sizes, sweeps, centered
        self.weights = nn.ParameterList(init_scale * torch.randn(low, high) for low, high in pairwise(sizes))
        self.biases = nn.ParameterList(torch.zeros(size) for size in sizes)
        self.register_buffer("offsets", torch.full((sum(sizes),), 0.5 if centered else 0.0))

    @property
    def inner(self) -> Inference:
        return MeanField(self)

    def layer_biases(self) -> list[Tensor]:
        """Biases of each layer where products are of the units themselves, whether centered or not."""
        if not self.centered:
            return list(self.biases)
        offsets, biases = self.get_buffer("offsets").split(self.sizes), list(self.biases)
        for low, weight in enumerate(self.weights):
            biases[low] = biases[low] - weight @ offsets[low + 1]
            biases[low + 1] = biases[low + 1] - offsets[low] @ weight
        return biases

    def log_f(self, layers: Sequence[Tensor]) -> Tensor:
        """-E of all layers, each [..., n_l]: [...] nats; linear in each layer, so that means may stand for bits."""
        terms = [layer @ bias for layer, bias in zip(layers, self.layer_biases(), strict=True)]
        joined = zip(layers, self.weights, layers[1:], strict=False)
        terms += [((low @ weight) * high).sum(-1) for low, weight, high in joined]
        return torch.stack(torch.broadcast_tensors(*terms)).sum(0)

    def mean_field(self, v: Tensor, sweeps: int | None = None) -> list[Tensor]:
        """Logits of each hidden layer given v [..., V], from fair coins on, each layer in turn; detached."""
        v, above = v.detach(), self.sizes[1:]
        ends = [sum(above[:index]) for index in range(len(above) + 1)]
        pieces = [range(low, high) for low, high in pairwise(ends)]

        def value(mean: Tensor) -> Tensor:
            return self.log_f([v, *mean.split(above, -1)])

        start = v.new_zeros(*v.shape[:-1], ends[-1])
        return list(settle(value, start, pieces, sweeps or self.sweeps).split(above, -1))

    def contrast(self, tau: Tensor, steps: int, layer: int = 0) -> tuple[Tensor, Tensor]:
        """F of data and of where chains take them; of a layer, those of `_Doubled` on draws of the layer below it.

        Raises:
            UsageError: a layer that there is not.
        """
        if not layer:
            return super().contrast(tau, steps)
        if layer >= len(self.sizes):
            raise UsageError(f"dbm: layer {layer} of {len(self.sizes) - 1} hidden ones; name one of them")
        *below, machine = (self._doubled(each) for each in range(1, layer + 1))
        v = self.visible(tau).flatten(1)
        with torch.no_grad():
            for lower in below:
                v = lower.up(v.expand(lower.lows, -1, -1))[0]
            start = v.expand(machine.lows, -1, -1)
            end = start
            for _ in range(steps):
                end = machine.down(machine.up(end))
        return machine.free_energy(start), machine.free_energy(end)

    def _doubled(self, layer: int) -> "_Doubled":
        low, high = self.get_buffer("offsets").split(self.sizes)[layer - 1 : layer + 1]
        last = layer == len(self.sizes) - 1
        biases = self.biases[layer - 1], self.biases[layer]
        return _Doubled(self.weights[layer - 1], *biases, low, high, 1 if last else 2, 1 if layer == 1 else 2)

    def machine(self) -> tuple[Tensor, Tensor, Tensor]:
        rows = []
        for even in range(0, len(self.sizes), 2):
            blocks = [self._joining(even, odd) for odd in range(1, len(self.sizes), 2)]
            rows.append(torch.cat(blocks, 1))
        biases = self.layer_biases()
        return torch.cat(rows), torch.cat(biases[::2]), torch.cat(biases[1::2])

    def _joining(self, even: int, odd: int) -> Tensor:
        if odd == even + 1:
            return self.weights[even]
        return self.weights[odd].mT if odd == even - 1 else self.base_bias.new_zeros(self.sizes[even], self.sizes[odd])

    @torch.no_grad()
    def bind(self, q: Inference, x: Tensor) -> None:
        if self.centered:
            state = q(x[:MAX_CODES]).sample()[..., -self.state_shape.numel() :]
            self.get_buffer("offsets")[: self.sizes[0]] = self.visible(state).flatten(1).mean(0)


MAX_CODES = 10_000  # data whose rates are the offsets of v


@hookimpl
def register_priors(register):
    register("dbm", DBM)
