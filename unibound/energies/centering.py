"""Centered gradients of a Boltzmann machine: steps as if its units were counted from their means.

Shapes: V and H numbers of the statistics of the two sides, M chains.
"""

from typing import Any

import torch
from torch import Tensor, nn

from unibound.errors import UsageError

MEMORY = 100
"""Steps over which the means are averaged."""


class Centering(nn.Module):
    """Weight and biases as they are, whose gradient is that of a machine with offsets m and l, carried back to them.

        -E = (v - m)'W(h - l) + b*'v + c*'h,   so that b = b* - W l and c = c* - W'm

        dW = gW - m gc' - gb l',   db = gb - dW l,   dc = gc - dW'm

    with g the gradient in W, b and c. A step along d is, to first order, a step along the gradient in W, b* and c*. It
    ends where the gradient does, since the map from one to the other is positive definite; no value of the machine
    depends on it, and the weights that are kept are those of the plain machine. What it buys: a machine learns the same
    whether a unit is read as 0 and 1 or the other way round, and the weight need not learn what biases say.

    m and l are means over the persistent chains, averaged over steps: whatever they are, the gradient is a true one.

    Args:
        visible: m before any chain was seen [V].
        hidden: l [H].

    Source: Montavon and Mueller, "Deep Boltzmann machines and the centering trick" (2012),
    https://doi.org/10.1007/978-3-642-35289-8_33; Melchior, Fischer and Wiskott, "How to center deep Boltzmann machines"
    (2016), https://jmlr.org/papers/v17/14-237.html, whose offsets by the model these are.
    """

    visible: Tensor
    hidden: Tensor
    seen: Tensor

    def __init__(self, visible: Tensor, hidden: Tensor) -> None:
        super().__init__()
        self.register_buffer("visible", visible)
        self.register_buffer("hidden", hidden)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same W [V, H], b [V] and c [H], with centered gradients."""
        return _Centered.apply(weight, visible_bias, hidden_bias, self.visible, self.hidden)  # type: ignore[no-any-return]

    @torch.no_grad()
    def follow(self, visible: Tensor, hidden: Tensor) -> None:
        """Take note of where the units of chains stand, [M, V] and [M, H]."""
        self.seen += 1
        share = 1 / self.seen.clamp(max=MEMORY)
        self.visible += share * (visible.mean(0) - self.visible)
        self.hidden += share * (hidden.mean(0) - self.hidden)


def check_steps(module: nn.Module, algorithm: str) -> None:
    """Raise UsageError where centered gradients would be stepped by other than sgd.

    They are a direction, in which a bias makes up for what its column of the weight does; steps that are scaled element
    by element leave both, and the machine runs away.
    """
    if algorithm != "sgd" and any(isinstance(part, Centering) for part in module.modules()):
        raise UsageError(
            f"centered gradients are steps for sgd, and {algorithm}, which scales each element by itself, undoes them; "
            "give the prior --optimizers.prior.algorithm sgd, or leave centered out"
        )


class _Centered(torch.autograd.Function):
    """The identity, with the gradient of `Centering`."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, b: Tensor, c: Tensor, visible: Tensor, hidden: Tensor) -> Any:
        ctx.offsets = visible.clone(), hidden.clone()  # they move on while a graph is kept
        return weight.view_as(weight), b.view_as(b), c.view_as(c)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g_weight, g_b, g_c), (m, hidden) = gradients, ctx.offsets
        weight = g_weight.addr(m, g_c, alpha=-1).addr_(g_b, hidden, alpha=-1)
        return weight, g_b - weight @ hidden, g_c - m @ weight, None, None
