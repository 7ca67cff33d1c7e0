"""Hamiltonian Monte Carlo."""

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from unibound import EnergyPrior, Transition, UsageError, hookimpl
from unibound.energies.transition import accept, slope
from unibound.support import describe, real, same


@attrs.frozen
class HMC(Transition):
    """States roll along the energy with a random momentum, and where they come to is accepted or rejected.

        H(x, r) = F(x) + r'r / 2,   log accept = H(x, r) - H(x', r')

    (x', r') is reached by leapfrog steps, with half steps of the momentum at both ends, so that it would come back
    exactly if r' were turned round. In training the step is adapted until four of five proposals are accepted; what it
    came to is saved with the prior.

    Args:
        step: length of a leapfrog step, before it is adapted.
        leapfrogs: steps of a move.

    Source: Neal, "MCMC using Hamiltonian dynamics" (2011), https://arxiv.org/abs/1206.1901; Betancourt, Byrne and
    Girolami, "Optimizing the integrator step size for Hamiltonian Monte Carlo" (2014),
    https://arxiv.org/abs/1411.6669, for the rate 0.8.
    """

    needs: ClassVar[str] = "an energy over reals"
    target: ClassVar[float | None] = 0.8

    step: float = attrs.field(default=0.2, validator=attrs.validators.gt(0.0))
    leapfrogs: int = attrs.field(default=5, validator=attrs.validators.ge(1))

    def roll(self, energy: EnergyPrior, tau: Tensor, beta: float, momentum: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where tau [M, *Z] and its momentum come to, and by how much the leapfrog changes H: [M] nats."""
        size = self.step * float(energy.pace)
        free, down = slope(energy, tau, beta)
        before = free + momentum.square().flatten(1).sum(1) / 2
        for _ in range(self.leapfrogs):
            momentum = momentum - size / 2 * down
            tau = tau + size * momentum
            free, down = slope(energy, tau, beta)
            momentum = momentum - size / 2 * down
        return tau, momentum, free + momentum.square().flatten(1).sum(1) / 2 - before

    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        proposed, _, error = self.roll(energy, tau, beta, torch.randn_like(tau))
        return accept(tau, proposed, -error)

    def check(self, energy: EnergyPrior) -> None:
        if not same(energy.support, real):
            raise UsageError(
                f"hmc moves reals, but {type(energy).__name__} is over {describe(energy.support)}; use own"
            )
        slope(energy, energy.chains[:1], 1.0)


@hookimpl
def register_transitions(register):
    register("hmc", HMC)
