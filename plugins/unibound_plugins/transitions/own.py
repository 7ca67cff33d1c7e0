"""The move that an energy has of its own."""

from typing import ClassVar

import attrs
from torch import Tensor

from unibound import EnergyPrior, Transition, UsageError, hookimpl


@attrs.frozen
class Own(Transition):
    """The energy's own move: block Gibbs for an RBM, which redraws all hidden units, then all visible ones.

    It is what moves a prior's states where no transition is named.

    Source: Geman and Geman, "Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images"
    (1984), https://doi.org/10.1109/TPAMI.1984.4767596
    """

    needs: ClassVar[str] = "an energy with a move of its own, such as an rbm"

    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        return energy.gibbs(tau, 1, beta)

    def check(self, energy: EnergyPrior) -> None:
        if type(energy).gibbs is EnergyPrior.gibbs:
            name = type(energy).__name__
            raise UsageError(f"own asks {name} for a move of its own, and it has none; use another transition")


@hookimpl
def register_transitions(register):
    register("own", Own)
