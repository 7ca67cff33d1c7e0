"""Langevin steps that nothing corrects."""

import math
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from unibound import EnergyPrior, Transition, UsageError, hookimpl
from unibound.energies.transition import slope
from unibound.support import describe, real, same


@attrs.frozen
class Langevin(Transition):
    """A step down the gradient and noise, always taken: cheap, and not quite right.

        y = x - (s / 2) grad F(x) + sqrt(s) noise

    Its chains settle in another distribution than exp(-F), the farther from it the larger the step: of a normal of
    variance v they have the variance v / (1 - s / 4v). It declares that, so that a log Z annealed by it is marked
    heuristic. `mala` is the same step with the correction.

    Args:
        step: s.

    Source: Parisi, "Correlation functions and computer simulations" (1981),
    https://doi.org/10.1016/0550-3213(81)90056-0; Roberts and Tweedie, "Exponential convergence of Langevin
    distributions and their discrete approximations" (1996), https://doi.org/10.2307/3318418
    """

    needs: ClassVar[str] = "an energy over reals"
    exact: ClassVar[bool] = False

    step: float = attrs.field(default=0.01, validator=attrs.validators.gt(0.0))

    def drift(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        """Where tau [M, *Z] goes without noise."""
        return tau - self.step / 2 * slope(energy, tau, beta)[1]

    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        return self.drift(energy, tau, beta) + math.sqrt(self.step) * torch.randn_like(tau)

    def check(self, energy: EnergyPrior) -> None:
        if not same(energy.support, real):
            over = describe(energy.support)
            raise UsageError(f"langevin moves reals, but {type(energy).__name__} is over {over}; use own")
        slope(energy, energy.chains[:1], 1.0)


@hookimpl
def register_transitions(register):
    register("langevin", Langevin)
