"""A deep Boltzmann machine: layers of bits joined each to the next, every other layer summed out."""

import math
from collections.abc import Sequence
from itertools import pairwise
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

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


class DBM(Bipartite):
    """p(v, h) = exp(sum_l h_l' W_l h_{l+1} + sum_l b_l' h_l) / Z, with h_0 = v; v is what the model below sees.

        F(v, h_2, h_4, ...) = -sum_{l even} b_l' h_l - sum_{l odd} sum softplus(b_l + h_{l-1} W_{l-1} + W_l h_{l+1})

    Odd layers are summed out, so that this is a restricted Boltzmann machine between even layers and odd ones. The
    even hidden layers are latents of the prior's own: its state is (v, h_2, h_4, ...), and q draws them from mean field
    over all hidden layers, a fixed number of sweeps layer by layer, held still in gradients. With model `identity` this
    is a deep Boltzmann machine of the data, and the K-particle bound over h_2 is tighter than that of mean field, the
    number that is usually printed. With log Z by annealing alone, either is flattered, and has no side.

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
