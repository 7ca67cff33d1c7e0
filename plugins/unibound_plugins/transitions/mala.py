"""Langevin steps, each accepted or rejected."""

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from unibound import EnergyPrior, Transition, UsageError, hookimpl
from unibound.energies.transition import accept, langevin, slope
from unibound.support import describe, real, same


@attrs.frozen
class MALA(Transition):
    """A step down the gradient and noise, then the test of Metropolis that makes it exact.

        y = x - (s / 2) grad F(x) + sqrt(s) noise
        log accept = F(x) - F(y) + log N(x; y - (s / 2) grad F(y), s) - log N(y; x - (s / 2) grad F(x), s)

    In training the step s is adapted until a little more than half of the proposals are accepted; what it came to is
    saved with the prior.

    Args:
        step: s, before it is adapted.

    Source: Roberts and Tweedie, "Exponential convergence of Langevin distributions and their discrete approximations"
    (1996), https://doi.org/10.2307/3318418; Roberts and Rosenthal, "Optimal scaling of discrete approximations to
    Langevin diffusions" (1998), https://doi.org/10.1111/1467-9868.00123, for the rate 0.574.
    """

    needs: ClassVar[str] = "an energy over reals"
    target: ClassVar[float | None] = 0.574

    step: float = attrs.field(default=0.3, validator=attrs.validators.gt(0.0))

    def propose(self, energy: EnergyPrior, tau: Tensor, beta: float, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The proposals [M, *Z] that standard normal noise [M, *Z] makes of tau, and log min(1, accept) [M]."""
        return langevin(energy, tau, beta, self.step * float(energy.pace), noise)

    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        return accept(tau, *self.propose(energy, tau, beta, torch.randn_like(tau)))

    def check(self, energy: EnergyPrior) -> None:
        if not same(energy.support, real):
            raise UsageError(
                f"mala moves reals, but {type(energy).__name__} is over {describe(energy.support)}; use own"
            )
        slope(energy, energy.chains[:1], 1.0)


@hookimpl
def register_transitions(register):
    register("mala", MALA)
