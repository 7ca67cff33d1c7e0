"""Bits that are predicted one after another: nets that do so, what they make a distribution of, and priors of it.

Shapes: *Z one event, D its bits, H hidden units, R orderings. Everything is in nats.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear, logsigmoid, pad

from unibound import kernels
from unibound.distributions import Drawn
from unibound.errors import UsageError
from unibound.prior import Prior
from unibound.support import boolean
from unibound.weights import log_mean_exp

AT_ONCE = 1 << 24
"""Elements of what a net keeps of its bits, in memory at once where no gradient is asked for."""


class Predictor(nn.Module, ABC):
    """The logit of each bit given those before it, in any ordering of them.

    A context shifts what the first hidden units and the logits are before they bend: `hidden` [..., H] and `output`
    [..., D], or nothing.
    """

    num_hidden: int
    """Units that a context shifts; 0 where there are none."""

    @abstractmethod
    def forward(self, bits: Tensor, order: Tensor, hidden: Tensor | None, output: Tensor | None) -> Tensor:
        """Map bits [..., D] to the logit of each [..., D], given the bits that come before it in `order` [D]."""

    @abstractmethod
    def draw(
        self, lead: Sequence[int], order: Tensor, hidden: Tensor | None, output: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Draw bits [*lead, D], each once, and their log-probabilities [*lead], without gradients."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Numbers held in memory for each event."""


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


class Tied(Predictor):
    """One layer of sigmoid units whose activations grow by each bit that is known: the net of NADE.

        p(z_d = 1 | z_<d) = sigmoid(b_d + V_d . sigmoid(c + sum_{e before d} W_e z_e))

    Args:
        num_bits: D.
        num_hidden: H.
        dropout: fraction of hidden units left out in each training step.

    Source: Larochelle and Murray, "The neural autoregressive distribution estimator" (2011),
    https://proceedings.mlr.press/v15/larochelle11a.html
    """

    def __init__(self, num_bits: int, num_hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_hidden, self.dropout = num_hidden, dropout
        scale = 1 / math.sqrt(num_bits)
        self.weight = nn.Parameter(scale * (2 * torch.rand(num_hidden, num_bits) - 1))  # W [H, D]
        self.output_weight = nn.Parameter(scale * (2 * torch.rand(num_bits, num_hidden) - 1))  # V [D, H]
        self.bias = nn.Parameter(torch.zeros(num_hidden))  # c
        self.output_bias = nn.Parameter(torch.zeros(num_bits))  # b

    @property
    def size(self) -> int:
        return 3 * self.weight.numel()

    def forward(self, bits: Tensor, order: Tensor, hidden: Tensor | None, output: Tensor | None) -> Tensor:
        steps = bits[..., order].unsqueeze(-1) * self.weight.T[order]  # [..., D, H]
        known = pad(steps[..., :-1, :], (0, 0, 1, 0)).cumsum(-2)
        units = torch.sigmoid(known + (self.bias if hidden is None else (self.bias + hidden).unsqueeze(-2)))
        if self.training and self.dropout > 0:
            units = units * dropout(torch.ones_like(units[..., :1, :]), self.dropout)  # the same for every bit
        logits = torch.einsum("...dh,dh->...d", units, self.output_weight[order])[..., order.argsort()]
        return logits + self.output_bias if output is None else logits + self.output_bias + output

    def draw(
        self, lead: Sequence[int], order: Tensor, hidden: Tensor | None, output: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        active = self.bias.expand(*lead, -1) if hidden is None else (self.bias + hidden).expand(*lead, -1)  # [..., H]
        bits, log_p = active.new_zeros(*lead, len(order)), active.new_zeros(tuple(lead))
        for d in order.tolist():
            logit = active.sigmoid() @ self.output_weight[d] + self.output_bias[d]
            bit, log_bit = _toss(logit if output is None else logit + output[..., d])
            bits[..., d], log_p = bit, log_p + log_bit
            active = active + bit.unsqueeze(-1) * self.weight[:, d]
        return bits, log_p


class Masked(Predictor):
    """A net of layers whose weights are masked so that no logit sees its own bit or a later one: the net of MADE.

    Bits have places 1..D in the ordering, hidden units degrees 1..D - 1. A unit sees bits of places, and units of
    degrees, up to its own; a logit those strictly below its place. No hidden layers and direct weights make a fully
    visible belief net.

    Args:
        num_bits: D.
        widths: of the hidden layers.
        direct: let every bit also see those before it by weights of their own.
        dropout: fraction of hidden units left out in each training step.

    Source: Germain, Gregor, Murray and Larochelle, "MADE: Masked autoencoder for distribution estimation" (2015),
    https://arxiv.org/abs/1502.03509
    """

    degrees: Tensor

    def __init__(self, num_bits: int, widths: Sequence[int], *, direct: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_hidden, self.dropout = (widths[0] if widths else 0), dropout
        sizes = [num_bits, *widths]
        self.layers = nn.ModuleList(nn.Linear(below, above) for below, above in zip(sizes, widths, strict=False))
        last, scale = (widths[-1] if widths else 0), 1 / math.sqrt(num_bits)
        self.output_weight = nn.Parameter((2 * torch.rand(num_bits, last) - 1) / math.sqrt(max(last, 1)))
        self.output_bias = nn.Parameter(torch.zeros(num_bits))
        self.direct = nn.Parameter(scale * (2 * torch.rand(num_bits, num_bits) - 1)) if direct else None
        even = [1 + torch.arange(width) * (num_bits - 1) // width for width in widths]
        self.register_buffer("degrees", torch.cat([torch.zeros(0, dtype=torch.long), *even]))  # of all layers in turn

    @property
    def size(self) -> int:
        return 2 * (len(self.degrees) + len(self.output_bias))

    @property
    def linear(self) -> list[nn.Linear]:
        """The hidden layers."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def layer_degrees(self) -> list[Tensor]:
        """Degrees of each hidden layer's units, each [H]."""
        return list(self.degrees.split([layer.out_features for layer in self.linear]))

    def masks(self, order: Tensor) -> list[Tensor]:
        """Which weights count [out, in], of each hidden layer and then of the logits."""
        place = order.argsort() + 1
        seen, found = place, []
        for degree in self.layer_degrees():
            found.append(degree.unsqueeze(1) >= seen)
            seen = degree
        return [*found, place.unsqueeze(1) > seen]

    def forward(self, bits: Tensor, order: Tensor, hidden: Tensor | None, output: Tensor | None) -> Tensor:
        units, masks = bits if self.layers else bits[..., :0], self.masks(order)
        for depth, layer in enumerate(self.linear):
            units = linear(units, layer.weight * masks[depth], layer.bias)
            if depth == 0 and hidden is not None:
                units = units + hidden
            units = dropout(units.relu(), self.dropout, self.training and self.dropout > 0)
        logits = linear(units, self.output_weight * masks[-1] if self.layers else self.output_weight, self.output_bias)
        if self.direct is not None:
            place = order.argsort()
            logits = logits + linear(bits, self.direct * (place.unsqueeze(1) > place))
        return logits if output is None else logits + output

    def draw(
        self, lead: Sequence[int], order: Tensor, hidden: Tensor | None, output: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What is not known yet is zero, and no mask is needed: each unit is computed once, when all it sees is."""
        bits, log_p = self.output_bias.new_zeros(*lead, len(order)), self.output_bias.new_zeros(tuple(lead))
        units = [bits[..., :0], *(bits.new_zeros(*lead, layer.out_features) for layer in self.linear)]
        degrees = self.layer_degrees()
        for place, d in enumerate(order.tolist(), 1):
            logit = units[-1] @ self.output_weight[d] + self.output_bias[d]
            if self.direct is not None:
                logit = logit + bits @ self.direct[d]
            bit, log_bit = _toss(logit if output is None else logit + output[..., d])
            bits[..., d], log_p = bit, log_p + log_bit
            below = bits
            for depth, (layer, degree) in enumerate(zip(self.linear, degrees, strict=True)):
                due = (degree == place).nonzero().squeeze(1)
                raised = linear(below, layer.weight[due], layer.bias[due])
                if depth == 0 and hidden is not None:
                    raised = raised + hidden[..., due]
                below = units[depth + 1]
                below[..., due] = raised.relu()
        return bits, log_p


def _toss(logit: Tensor) -> tuple[Tensor, Tensor]:
    """A bit of each logit, and its log-probability."""
    bit = (torch.rand_like(logit) < logit.sigmoid()).to(logit)
    return bit, logsigmoid((2 * bit - 1) * logit)


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
        if num_orders < 1:
            raise UsageError(f"{name}: num_orders must be at least 1, not {num_orders}")
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
