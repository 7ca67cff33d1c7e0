"""Distributions over few values, of every element by itself: spins and categories."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from unibound.distributions import Bits
from unibound.support import Constraint, integer_interval, spin


class Spins(Bits):
    """Independent spins: batch shape [...], event shape [*X]; bits of the same logits, with -1 in the place of 0.

    Args:
        logits: log p(1) / p(-1) of each spin [..., *X].
        event_dims: how many trailing dimensions are one event.
    """

    support = spin  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    @property
    def mean(self) -> Tensor:
        return 2 * super().mean - 1

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            uniform = torch.rand(
                self._extended_shape(torch.Size(sample_shape)), dtype=self.logits.dtype, device=self.logits.device
            )
            return 2 * (uniform < self.logits.sigmoid()).to(self.logits.dtype) - 1

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value) [...] in nats; value broadcasts against the logits."""
        return super().log_prob((value + 1) / 2)

    def entropy(self) -> Tensor:
        """Entropy [...] in nats."""
        return Bits(self.logits, len(self.event_shape)).entropy()


class Categories(Distribution):
    """Independent categories, numbered from 0: batch shape [...], event shape [*X], codes 0 .. q - 1 as numbers.

    Args:
        logits: of each category of each element [..., *X, q], up to a constant.
        event_dims: how many dimensions before the last are one event.
    """

    arg_constraints = {}  # noqa: RUF012 - the name torch.distributions looks up  # pyright: ignore
    has_rsample = False

    def __init__(self, logits: Tensor, event_dims: int = 1) -> None:
        self.logits = logits
        shape, split = logits.shape[:-1], logits.dim() - 1 - event_dims
        super().__init__(shape[:split], shape[split:], validate_args=False)

    @property
    def support(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return integer_interval(0, self.logits.shape[-1] - 1)

    @property
    def mean(self) -> Tensor:
        return self.logits.softmax(-1) @ torch.arange(self.logits.shape[-1]).to(self.logits)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            below = self.logits.softmax(-1)[..., :-1].cumsum(-1)  # [..., *X, q - 1]
            shape = self._extended_shape(torch.Size(sample_shape))
            uniform = torch.rand(shape, dtype=below.dtype, device=below.device)
            return (below <= uniform.unsqueeze(-1)).sum(-1).to(below.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value) [...] in nats; value broadcasts against the batch."""
        log_p = self.logits.log_softmax(-1)
        lead = torch.broadcast_shapes(value.shape, log_p.shape[:-1])
        index = value.long().expand(lead).unsqueeze(-1)
        chosen = log_p.expand(*lead, -1).gather(-1, index).squeeze(-1)
        return chosen.flatten(-len(self.event_shape)).sum(-1) if self.event_shape else chosen

    def elements(self, value: Tensor) -> Tensor:
        """log p of each element by itself [..., *X] in nats."""
        return Categories(self.logits, 0).log_prob(value)

    def entropy(self) -> Tensor:
        """Entropy [...] in nats."""
        log_p = self.logits.log_softmax(-1)
        own = -(log_p.exp() * log_p.clamp(min=-math.inf)).nan_to_num().sum(-1)
        return own.flatten(-len(self.event_shape)).sum(-1) if self.event_shape else own
