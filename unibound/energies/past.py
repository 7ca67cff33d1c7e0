"""Weights that an energy has had, kept as replicas: trajectory tempering.

Shapes: R replicas, M chains, *Z one state.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor, nn

from unibound.energies.tempering import Flow, swap
from unibound.errors import UsageError

if TYPE_CHECKING:
    from unibound.energies.energy import EnergyPrior

LEAST = 0.3
"""Share of swaps between the weights and the newest kept ones below which the former are kept, too."""


class Past(nn.Module):
    """R - 1 earlier weights of an energy, the first ones always among them; chains are kept at each, neighbors swap.

    On the way from a high temperature to 1 phases of a trained machine may appear at once, with nothing in common with
    what was there before. In training they came one after another, most of them continuously, so that neighbors
    overlap. Each replica leaves exp(-F_r) invariant, F_r with the weights of then, and swaps are accepted by all of it:

        log accept = F_r(a) + F_{r+1}(b) - F_r(b) - F_{r+1}(a)

    Weights are kept when swaps with those of now become rare, and for them go the ones whose neighbors would swap most
    easily without them. At first all are the same.

    Args:
        energy: whose parameters these are.
        count: R - 1.

    Source: Béreux, Decelle, Furtlehner, Rosset and Seoane, "Fast training and sampling of restricted Boltzmann
    machines" (2024), https://arxiv.org/abs/2405.15376; here in training, with as many weights as one has room for.
    """

    def __init__(self, energy: nn.Module, count: int) -> None:
        super().__init__()
        for index, parameter in enumerate(energy.parameters()):
            self.register_buffer(f"weights_{index}", parameter.detach().expand(count, *parameter.shape).clone())

    @contextmanager
    def at(self, energy: nn.Module, rung: int) -> Iterator[None]:
        """The energy as it was; beyond the newest, as it is."""
        own = [(parameter, parameter.data) for parameter in energy.parameters()]
        try:
            for (parameter, _), kept in zip(own, self.buffers(), strict=True):
                if rung < len(kept):
                    parameter.data = kept[rung]
            yield
        finally:
            for parameter, data in own:
                parameter.data = data

    def swapped(self, energy: "EnergyPrior", flow: Flow, states: Tensor) -> Tensor:
        """States [R, M, *Z] after swaps, of which the flow takes note; weights are kept where it is time to."""
        states, taken = swap(_Rungs(energy, self), states, range(len(states)))
        flow.follow(taken)
        return states if taken[-1].double().mean() >= LEAST else self._keep(energy, flow, states)

    def _keep(self, energy: nn.Module, flow: Flow, states: Tensor) -> Tensor:
        left_out = flow.leave_out()
        kept = [rung for rung in range(len(states) - 1) if rung != left_out]
        for parameter, buffer in zip(energy.parameters(), self.buffers(), strict=True):
            buffer.copy_(torch.cat([buffer[kept], parameter.data.unsqueeze(0)]))
        # Each chain gets another's state, so that the replicas of a chain stay independent.
        return torch.cat([states[kept], states[-1:].roll(1, 1), states[-1:]])


@attrs.frozen
class _Rungs:
    """Energies in the order in which they were had, numbered instead of tempered."""

    energy: "EnergyPrior"
    past: Past

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        with self.past.at(self.energy, int(beta)):
            return self.energy.free_energy(tau)


def remember(energy: "EnergyPrior", num_snapshots: int) -> None:
    """Keep chains at so many earlier weights, too; once the parameters are there, and 0 for none.

    Raises:
        UsageError: for a single one, or beside temperatures.
    """
    if num_snapshots == 0:
        return
    who = type(energy).__name__.lower()
    if num_snapshots < 2:
        raise UsageError(f"{who}: num_snapshots must be 0, or at least 2, not {num_snapshots}")
    if len(energy.betas) > 1:
        raise UsageError(
            f"{who}: replicas are at num_replicas temperatures or at num_snapshots weights; set one of them"
        )
    energy.betas = (1.0,) * (num_snapshots + 1)
    energy.replicas = energy.chains.expand(num_snapshots, *energy.chains.shape).clone()
    energy.flow = Flow(num_snapshots + 1, len(energy.chains))
    energy.past = Past(energy, num_snapshots)
