"""A transition: how the states of an energy are moved.

Shapes: M chains, *Z one state.
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from unibound.energies.energy import EnergyPrior
from unibound.energies.tempering import swap
from unibound.errors import UsageError
from unibound.record import Record

__all__ = ["Transition", "accept", "langevin", "slope", "swap"]


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

    target: ClassVar[float | None] = None
    """The share of proposals at which it works best, if it accepts or rejects by a step length that can be adapted:
    in training `EnergyPrior.pace`, by which it multiplies its step, is driven there. None where there is no such."""

    @abstractmethod
    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        """Move tau [M, *Z] once; a new tensor, detached."""

    def check(self, energy: EnergyPrior) -> None:
        """Raise UsageError, with the reason and what would work, if it cannot move this energy's states."""
        del energy


def slope(energy: EnergyPrior, tau: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """F_beta(tau) [M] in nats and its gradient in tau [M, *Z], both detached; no parameter gets a gradient.

    Raises:
        UsageError: a free energy that does not depend smoothly on tau.
    """
    with torch.enable_grad():
        at = tau.detach().clone().requires_grad_()
        free = energy.free_energy(at, beta)
        (grad,) = torch.autograd.grad(free.sum(), at, allow_unused=True) if free.requires_grad else (None,)
    if grad is None:
        name = type(energy).__name__
        raise UsageError(f"the free energy of {name} has no gradient in tau; use a transition that needs none")
    return free.detach(), grad


def langevin(energy: EnergyPrior, tau: Tensor, beta: float, size: float, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Where a Langevin step goes, and what it takes to correct it.

        y = x - (s / 2) grad F(x) + sqrt(s) noise
        log accept = F(x) - F(y) + log N(x; y - (s / 2) grad F(y), s) - log N(y; x - (s / 2) grad F(x), s)

    Args:
        tau: x [M, *Z].
        size: s.
        noise: standard normal [M, *Z].
    Returns:
        y [M, *Z] and min(0, log accept) [M] nats.

    Source: Roberts and Tweedie, "Exponential convergence of Langevin distributions and their discrete approximations"
    (1996), https://doi.org/10.2307/3318418
    """
    free, down = slope(energy, tau, beta)
    proposed = tau - size / 2 * down + math.sqrt(size) * noise
    there, up = slope(energy, proposed, beta)
    back = (tau - proposed + size / 2 * up).square().flatten(1).sum(1) / size
    log_ratio = free - there + (noise.square().flatten(1).sum(1) - back) / 2
    return proposed, log_ratio.clamp(max=0)


def accept(tau: Tensor, proposed: Tensor, log_ratio: Tensor) -> Tensor:
    """Metropolis and Hastings: each proposal [M, *Z] with probability min(1, exp(log_ratio [M])), else tau.

    What is no number, as where an energy overflows, is not accepted.

    Source: Hastings, "Monte Carlo sampling methods using Markov chains and their applications" (1970),
    https://doi.org/10.1093/biomet/57.1.97
    """
    taken = torch.rand_like(log_ratio).log() < log_ratio
    return torch.where(taken.view(-1, *[1] * (tau.dim() - 1)), proposed, tau)
