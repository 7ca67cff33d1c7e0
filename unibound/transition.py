"""A transition: how the states of an energy are moved.

Shapes: M chains, *Z one state.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from unibound.energy import EnergyPrior, swap
from unibound.record import Record

__all__ = ["Transition", "swap"]


class Transition(Record, ABC):
    """A stateless record that moves states so that exp(-F_beta) stays invariant, for every beta.

    Annealing, persistent chains and certificates move states by `EnergyPrior.move`, which calls the transition that an
    energy was given. Final subclasses are `attrs.frozen`.
    """

    needs: ClassVar[str] = "any energy"
    """What it asks of an energy, in words, for people."""

    exact: ClassVar[bool] = True
    """Whether exp(-F_beta) is invariant indeed. What is annealed by a transition that only nearly leaves it so has no
    side that it errs on, and says that it is heuristic."""

    @abstractmethod
    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        """Move tau [M, *Z] once; a new tensor, detached."""

    def check(self, energy: EnergyPrior) -> None:
        """Raise UsageError, with the reason and what would work, if it cannot move this energy's states."""
        del energy
