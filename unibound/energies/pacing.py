"""How long the steps of a move should be: adapted in training, held still while anything is weighed.

Shapes: M chains, *Z one state.
"""

import math
from typing import Any, Protocol

from torch import Tensor

from unibound.errors import UsageError

GAIN, LEAST = 0.1, 1e-6
"""How quickly the length of steps is adapted, and below which part of what was set no step is short enough."""
STUCK = 20
"""Steps after which chains of which none has moved will never move."""


class Paced(Protocol):
    """What moves states by steps that `pace` multiplies."""

    pace: Tensor | float
    transition: Any

    def move(self, tau: Tensor, steps: int = 1, beta: float = 1.0) -> Tensor:
        """Move tau [M, *Z]; a new tensor."""
        ...


def adapted(energy: Paced, tau: Tensor, steps: int, beta: float, target: float) -> Tensor:
    """Move tau [M, *Z] by so many steps, and set the pace so that a target share of them will be accepted.

    Raises:
        UsageError: where no step is short enough.

    Source: Andrieu and Thoms, "A tutorial on adaptive MCMC" (2008), https://doi.org/10.1007/s11222-008-9110-y
    """
    for _ in range(steps):
        start, tau = tau, energy.move(tau, 1, beta)
        off = (tau != start).flatten(1).any(1).double().mean().item() - target
        energy.pace *= math.exp(GAIN * off / (1 - target if off > 0 else target))  # as fast upward as downward
    if energy.pace < LEAST:
        name = type(energy).__name__
        raise UsageError(
            f"{energy.transition or name} accepts nothing, however small its step: the energy of {name} is too rough, "
            "or no number; train with a lower learning rate"
        )
    return tau


def require_moved(energy: Paced, start: Tensor, end: Tensor, steps: int) -> None:
    """Raise UsageError where many steps have moved no chain at all [M, *Z]."""
    if steps >= STUCK and bool((start == end).all()):
        who = energy.transition or type(energy).__name__
        raise UsageError(f"{who} moved no chain in {steps} steps; give it a smaller step")
