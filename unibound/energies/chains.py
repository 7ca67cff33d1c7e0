"""How many persistent chains an energy keeps, and how often they move: changed by a stage, or by what is loaded."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from unibound.energies.energy import EnergyPrior


@torch.no_grad()
def keep(energy: "EnergyPrior", num_chains: int = 0, steps: int = 0) -> None:
    """From here on keep so many chains, and move them so often per training step; 0 is what the energy was built with.

    Of too many the first stay, as they are. Where there are too few, all that there are stay as they are, and new ones
    begin where these stand, in turn. Copies would count one state twice, so the new ones are moved `mixing_steps` times
    before they are read, a replica at its temperature or by its earlier weights; a round trip they have yet to make.

    Args:
        energy: whose chains, in place; random numbers are drawn only where new ones are needed.
        num_chains: M.
        steps: moves of every chain per training step.
    """
    usual_chains, usual_steps = energy.usual
    energy.steps = steps or usual_steps
    count, have = num_chains or usual_chains, len(energy.chains)
    if count == have:
        return
    replicas, chains = energy.replicas[:, :count], energy.chains[:count]
    if count > have:
        begin, rungs = torch.arange(have, count, device=chains.device) % have, []
        for rung, (replica, beta) in enumerate(zip((*replicas, chains), energy.betas, strict=True)):
            with nullcontext() if energy.past is None else energy.past.at(energy, rung):
                rungs.append(energy.move(replica[begin], energy.mixing_steps, beta))
        chains = torch.cat([chains, rungs.pop()])
        replicas = torch.cat([replicas, torch.stack(rungs)], 1) if rungs else chains.new_empty(0, *chains.shape)
    energy.replicas, energy.chains = replicas.clone(), chains.clone()
    if energy.flow is not None:
        been_hot = energy.flow.been_hot
        news = been_hot.new_zeros(len(been_hot), max(0, count - have))
        energy.flow.been_hot = torch.cat([been_hot[:, :count], news], 1)


def make_room(energy: "EnergyPrior", saved: Mapping[str, Tensor], prefix: str) -> None:
    """Give the buffers of chains the number of those that are about to be loaded, where these differ in no more."""
    found = saved.get(f"{prefix}chains")
    if found is None or found.shape[1:] != energy.chains.shape[1:] or len(found) == len(energy.chains):
        return
    energy.chains = energy.chains.new_empty(found.shape)
    energy.replicas = energy.replicas.new_empty(len(energy.replicas), *found.shape)
    if energy.flow is not None:
        been_hot = energy.flow.been_hot
        energy.flow.been_hot = been_hot.new_zeros(len(been_hot), len(found))
