"""Bits that are predicted one after another, as a distribution, and priors of it.

Shapes: *Z one event, D its bits, R orderings. Everything is in nats.
"""

import math
from abc import ABC
from collections.abc import Sequence

import torch
from torch import Tensor

from unibound import kernels
from unibound.draws import Drawn
from unibound.errors import UsageError
from unibound.prior import Prior
from unibound.sequences.predictor import Predictor
from unibound.support import boolean
from unibound.weights import log_mean_exp

AT_ONCE = 1 << 24
"""Elements of what a net keeps of its bits, in memory at once where no gradient is asked for."""

MAX_ORDERS = 1000
"""Orderings that are averaged; a datum is predicted in each of them."""


class Predicted(Drawn):
    """The distribution of bits that are predicted one after another: batch shape [...], event shape [*Z].

        p(z) = prod_d p(z_{o(d)} | z_{o(1)}, ..., z_{o(d - 1)})

    Args:
        predictor: what predicts.
        order: which bit is the first, which the second, ... [D].
        event_shape: the shape of one event [*Z].
        hidden: what a context does to the hidden units [..., H], or nothing.
        output: what it does to the logits [..., D], or nothing.
    """

    support = boolean  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    has_rsample = False

    def __init__(
        self,
        predictor: Predictor,
        order: Tensor,
        event_shape: Sequence[int],
        hidden: Tensor | None = None,
        output: Tensor | None = None,
    ) -> None:
        self.predictor, self.order, self.context = predictor, order, (hidden, output)
        given = [shift.shape[:-1] for shift in self.context if shift is not None]
        super().__init__(torch.broadcast_shapes(*given), torch.Size(event_shape), validate_args=False)

    def logits(self, value: Tensor) -> Tensor:
        """The logit of each bit given those before it: [..., *Z] to [..., *Z]."""
        return self._logits(value.flatten(-len(self.event_shape))).view_as(value)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value) [...] in nats; value broadcasts against the batch."""
        bits = value.flatten(-len(self.event_shape))
        return kernels.bernoulli_log_prob(self._logits(bits), bits)

    def _logits(self, bits: Tensor) -> Tensor:
        at_once = max(1, AT_ONCE // self.predictor.size)
        rows = bits.shape[:-1].numel()
        if torch.is_grad_enabled() or rows <= at_once or any(shift is not None for shift in self.context):
            return self.predictor(bits, self.order, *self.context)
        parts = [self.predictor(some, self.order, None, None) for some in bits.flatten(0, -2).split(at_once)]
        return torch.cat(parts).view_as(bits)

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        if reparameterized:
            raise UsageError("bits that are predicted one by one have no reparameterized draws; use vimco")
        with torch.no_grad():
            bits, log_p = self.predictor.draw((count, *self.batch_shape), self.order, *self.context)
        value = bits.view(count, *self.batch_shape, *self.event_shape)
        return value, self.log_prob(value) if torch.is_grad_enabled() else log_p


class Autoregressive(Prior, ABC):
    """A prior over bits that are predicted one after another, in one ordering or in several: normalized, and exact.

        log p(tau) = log (1/R) sum_r p_r(tau)

    is the mean of probabilities over orderings, which is at least that of their logarithms. In training mode p is that
    of one ordering, drawn by `advance`; evaluation mode has them all. The orderings are saved with the weights.

    Args:
        event_shape: the shape [*Z] of one latent.
        order: which bit is predicted first, which second, ...; as they lie in memory if it is empty.
        num_orders: orderings R, those after the first drawn at random.
        agnostic: train orderings of all bits, drawn anew for each step, and not only those that are kept.
    Raises:
        UsageError: an ordering that is no permutation.
    """

    support = boolean
    predictor: Predictor
    orders: Tensor
    current: Tensor

    def __init__(self, event_shape: tuple[int, ...], order: tuple[int, ...], num_orders: int, agnostic: bool) -> None:
        super().__init__(event_shape)
        name, num_bits = type(self).__name__.lower(), math.prod(event_shape)
        if order and sorted(order) != list(range(num_bits)):
            raise UsageError(
                f"{name}: order must name each bit from 0 to {num_bits - 1} once, not {list(order)}; leave it out for "
                "the order they lie in"
            )
        if not 1 <= num_orders <= MAX_ORDERS:
            raise UsageError(f"{name}: num_orders must be from 1 to {MAX_ORDERS}, not {num_orders}")
        self.agnostic = agnostic
        first = torch.tensor(order) if order else torch.arange(num_bits)
        orders = torch.stack([first, *(torch.randperm(num_bits) for _ in range(num_orders - 1))])  # [R, D]
        self.register_buffer("orders", orders)
        self.register_buffer("current", orders[0].clone())  # of the training step

    def distribution_in(self, order: Tensor) -> Predicted:
        """p_r(tau), of one ordering [D]."""
        return Predicted(self.predictor, order, self.event_shape)

    def log_prob(self, tau: Tensor) -> Tensor:
        if self.training:
            return self.distribution_in(self.current).log_prob(tau)
        return log_mean_exp(torch.stack([self.distribution_in(order).log_prob(tau) for order in self.orders]))

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        if self.training:
            return self.distribution_in(self.current).sample((count,))
        chosen = torch.randint(len(self.orders), (count,), device=self.orders.device)
        counts = chosen.bincount(minlength=len(self.orders)).tolist()
        drawn = [self.distribution_in(order).sample((n,)) for order, n in zip(self.orders, counts, strict=True) if n]
        return torch.cat(drawn)[torch.randperm(count, device=self.orders.device)] if len(drawn) > 1 else drawn[0]

    def advance(self) -> None:
        if self.agnostic:
            self.current.copy_(torch.randperm(len(self.current)))
        elif len(self.orders) > 1:
            self.current.copy_(self.orders[torch.randint(len(self.orders), ())])
