"""Flips of single bits or spins, chosen by the gradient of the energy."""

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from unibound import EnergyPrior, Transition, UsageError, hookimpl
from unibound.energies.transition import accept, slope
from unibound.support import describe, values


@attrs.frozen
class GibbsWithGradients(Transition):
    """Metropolis flips, proposed where the gradient says that the energy falls: for energies without block structure.

        q(i | x) = softmax_i((x_i - x_i') dF/dx_i / 2),   log accept = F(x) - F(y) + log q(i | y) - log q(i | x)

    x_i' is the other value of element i, and y is x with it. For an energy that is not linear in each element the
    gradient is a guess, which costs acceptance and not correctness.

    Args:
        flips: proposals per move.

    Source: Grathwohl, Swersky, Hashemi, Duvenaud and Maddison, "Oops I took a gradient: scalable sampling for discrete
    distributions" (2021), https://arxiv.org/abs/2102.04509
    """

    needs: ClassVar[str] = "an energy over bits or spins with a gradient"

    flips: int = attrs.field(default=3, validator=attrs.validators.ge(1))

    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        total = sum(values(energy.support) or ())  # of an element's two values
        free, log_q = self._look(energy, tau, beta, total)
        for _ in range(self.flips):
            site = log_q.exp().multinomial(1)  # [M, 1]
            flat = tau.flatten(1)
            proposed = flat.scatter(1, site, total - flat.gather(1, site)).view_as(tau)
            there, log_q_there = self._look(energy, proposed, beta, total)
            log_ratio = free - there + (log_q_there - log_q).gather(1, site).squeeze(1)
            tau = accept(tau, proposed, log_ratio)
            moved = (tau == proposed).flatten(1).all(1)  # [M]
            free, log_q = torch.where(moved, there, free), torch.where(moved.unsqueeze(1), log_q_there, log_q)
        return tau

    def _look(self, energy: EnergyPrior, tau: Tensor, beta: float, total: float) -> tuple[Tensor, Tensor]:
        """F_beta [M] and the log-probability of proposing each flip [M, Z]."""
        free, up = slope(energy, tau, beta)
        fall = (2 * tau - total) * up  # (x - x') dF/dx, by which a flip lowers the energy
        return free, (fall / 2).flatten(1).log_softmax(1)

    def check(self, energy: EnergyPrior) -> None:
        listed = values(energy.support)
        if listed is None or len(listed) != 2:
            over, name = describe(energy.support), type(energy).__name__
            raise UsageError(f"gibbs_with_gradients flips bits or spins, but {name} is over {over}; use own or mala")
        slope(energy, energy.chains[:1], 1.0)


@hookimpl
def register_transitions(register):
    register("gibbs_with_gradients", GibbsWithGradients)
