"""Nets that predict bits one after another: each logit by the bits before it, and by nothing else.

Shapes: D bits of one event, H hidden units.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear, logsigmoid, pad


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
            bit, log_bit = toss(logit if output is None else logit + output[..., d])
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
            bit, log_bit = toss(logit if output is None else logit + output[..., d])
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


def toss(logit: Tensor) -> tuple[Tensor, Tensor]:
    """A bit of each logit, and its log-probability."""
    bit = (torch.rand_like(logit) < logit.sigmoid()).to(logit)
    return bit, logsigmoid((2 * bit - 1) * logit)
