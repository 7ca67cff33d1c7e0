"""Sums and exact draws over every state of a prior small enough to be listed; streamed, in float64."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from unibound.energies.energy import EnergyPrior, Enumeration
from unibound.errors import UsageError
from unibound.support import describe

CHUNK_BITS = 14
"""States held in memory at once, as a power of two."""


@torch.no_grad()
def log_sum(prior: EnergyPrior, chunk_bits: int = CHUNK_BITS) -> float:
    """log Z in nats, exactly.

    Raises:
        UsageError: a weight that is not finite.
    """
    return _chunk_sums(*_wide(prior), chunk_bits).logsumexp(0).item()


@torch.no_grad()
def draw(prior: EnergyPrior, count: int, chunk_bits: int = CHUNK_BITS) -> Tensor:
    """Draw [count, *Z] exactly from the prior: a chunk of states by its weight, then a state of the chunk.

    Raises:
        UsageError: a weight that is not finite, or a listing that does not say how to draw from it.
    """
    states, device = _wide(prior)
    if states.draw is None:
        raise UsageError(f"{type(prior).__name__} lists its states, but not how to draw tau given one")
    sums = _chunk_sums(states, device, chunk_bits)
    wanted = torch.multinomial(sums.softmax(0), count, replacement=True).bincount(minlength=len(sums))
    drawn = []
    for digits, number in zip(_chunks(states, device, chunk_bits), wanted.tolist(), strict=True):
        if number:
            chosen = torch.multinomial(states.log_f(digits).softmax(0), number, replacement=True)
            drawn.append(states.draw(digits[chosen]))
    tau = torch.cat(drawn).to(prior.chains)
    return tau[torch.randperm(count, device=tau.device)]


def _wide(prior: EnergyPrior) -> tuple[Enumeration, torch.device]:
    wide = copy.deepcopy(prior).double()
    states = wide.enumeration()
    if states is None:
        name, over = type(prior).__name__, describe(prior.support)
        raise UsageError(f"the states of {name} cannot be listed: it is over {over}; anneal it instead")
    return states, wide.chains.device


def _chunks(states: Enumeration, device: torch.device, chunk_bits: int) -> Iterator[Tensor]:
    """Every state, as digits [N, num_digits], at most 2^chunk_bits at a time."""
    places = states.base ** torch.arange(states.num_digits, device=device)
    total, size = states.base**states.num_digits, 1 << chunk_bits
    for start in range(0, total, size):
        index = torch.arange(start, min(start + size, total), device=device)
        yield (index.unsqueeze(1) // places % states.base).double()


def _chunk_sums(states: Enumeration, device: torch.device, chunk_bits: int) -> Tensor:
    sums = torch.stack([states.log_f(digits).logsumexp(0) for digits in _chunks(states, device, chunk_bits)])
    if not sums.isfinite().all():
        raise UsageError("the weights of the listed states are not finite: the prior's parameters overflowed")
    return sums
