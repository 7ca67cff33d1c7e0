"""A normal prior, bent by a learned flow."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from unibound import Prior, UsageError, hookimpl
from unibound.distributions import flows
from unibound.support import real


class Flow(Prior):
    """p(tau) = N(z; 0, I) |det dz / dtau|, z undone from tau: normalized, and learned.

    With model `identity` it is a model of the data, and its likelihood exact. Needs the extra `flows`.

    Args:
        event_shape: shape [*Z] of one latent.
        kind: maf scores in one pass and draws in as many as there are elements; coupling does both in one.
        num_layers: maps one after another, of which every other has the elements in reverse.
        hidden: widths of the networks inside each.

    Source: Rezende and Mohamed, "Variational inference with normalizing flows" (2015),
    https://arxiv.org/abs/1505.05770; as a prior Chen et al., "Variational lossy autoencoder" (2017),
    https://arxiv.org/abs/1611.02731
    """

    support = real
    mean: Tensor

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        kind: Literal["maf", "coupling"] = "maf",
        num_layers: int = 4,
        hidden: tuple[int, ...] = (64,),
    ) -> None:
        super().__init__(event_shape)
        if num_layers < 1 or any(width < 1 for width in hidden):
            raise UsageError(f"flow: needs layers and hidden units, not {num_layers} and {list(hidden)}")
        size = math.prod(event_shape)
        self.layers = flows.layers(kind, num_layers, size, 0, hidden)
        self.register_buffer("mean", torch.zeros(size), persistent=False)

    def flat(self) -> flows.Flow:
        """p(tau) as a distribution over vectors."""
        base = Independent(Normal(self.mean, torch.ones_like(self.mean), validate_args=False), 1, validate_args=False)
        return flows.Flow(base, [layer(None).inv for layer in self.layers])

    def distribution(self) -> Distribution | None:
        return self.flat() if len(self.event_shape) == 1 else None

    def log_prob(self, tau: Tensor) -> Tensor:
        return self.flat().log_prob(tau.flatten(-len(self.event_shape)))

    def sample(self, count: int) -> Tensor:
        return self.flat().sample((count,)).view(count, *self.event_shape)


@hookimpl
def register_priors(register):
    register("flow", Flow)
