"""Replicas of chains at several temperatures: what neighbors gain by swapping, and their swaps.

Shapes: R replicas, M chains, *Z one state. Everything is in nats.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn

MEMORY = 100
"""Steps over which the flow of replicas is averaged."""


class Tempered(Protocol):
    """What has a free energy at every temperature."""

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        """Map tau [..., *Z] to F_beta(tau) [...] nats."""
        ...


@torch.no_grad()
def log_swap(energy: Tempered, a: Tensor, b: Tensor, low: float, high: float) -> Tensor:
    """log of how much likelier states a [M, *Z] at beta = low and b at high are in each other's places: [M] nats.

        F_low(a) + F_high(b) - F_low(b) - F_high(a)

    A swap is accepted with probability min(1, exp) of it. F_beta is what a move at beta leaves invariant; beta F is
    something else as soon as hidden units are summed out, and swaps by it would spoil every replica.
    """
    gain = energy.free_energy(a, low) + energy.free_energy(b, high)
    return gain - energy.free_energy(b, low) - energy.free_energy(a, high)


@torch.no_grad()
def swap(energy: Tempered, states: Tensor, betas: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Offer neighboring replicas each other's places, the hottest two first.

    Args:
        energy: whose replicas they are.
        states: [R, M, *Z]; not modified.
        betas: temperature of each replica [R].
    Returns:
        The states after the swaps [R, M, *Z], and which pairs swapped [R - 1, M].

    Source: Swendsen and Wang, "Replica Monte Carlo simulation of spin-glasses" (1986),
    https://doi.org/10.1103/PhysRevLett.57.2607
    """
    rows, swapped = list(states), []
    for r, (low, high) in enumerate(pairwise(betas)):
        a, b = rows[r], rows[r + 1]
        gain = log_swap(energy, a, b, low, high)
        taken = torch.rand_like(gain).log() < gain
        where = taken.view(-1, *[1] * (a.dim() - 1))
        rows[r], rows[r + 1] = torch.where(where, b, a), torch.where(where, a, b)
        swapped.append(taken)
    return torch.stack(rows), torch.stack(swapped)


class Flow(nn.Module):
    """How replicas have flowed between temperatures lately: state that is saved with them.

    A round trip is one of a chain from the coldest temperature to the hottest and back. Where there are none, replicas
    swap without anything ever coming from far, whatever share of swaps is accepted.

    Args:
        num_replicas: R, at least 2.
        num_chains: M.

    Source: Katzgraber, Trebst, Huse and Troyer, "Feedback-optimized parallel tempering Monte Carlo" (2006),
    https://arxiv.org/abs/cond-mat/0602085
    """

    been_hot: Tensor
    shares: Tensor
    trips: Tensor
    seen: Tensor

    def __init__(self, num_replicas: int, num_chains: int) -> None:
        super().__init__()
        self.register_buffer("been_hot", torch.zeros(num_replicas, num_chains, dtype=torch.bool))
        self.register_buffer("shares", torch.zeros(num_replicas - 1, dtype=torch.float64))
        self.register_buffer("trips", torch.zeros((), dtype=torch.float64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def follow(self, swapped: Tensor) -> None:
        """Take note of which pairs swapped [R - 1, M], in the order of `swap`."""
        rows = list(self.been_hot)
        for r, taken in enumerate(swapped):
            a, b = rows[r], rows[r + 1]
            rows[r], rows[r + 1] = torch.where(taken, b, a), torch.where(taken, a, b)
        came = rows[-1].double().mean()
        rows[0], rows[-1] = torch.ones_like(rows[0]), torch.zeros_like(rows[-1])
        self.been_hot.copy_(torch.stack(rows))
        self.seen += 1
        share = 1 / self.seen.clamp(max=MEMORY)
        self.shares += share * (swapped.double().mean(1) - self.shares)
        self.trips += share * (came - self.trips)

    def leave_out(self) -> int:
        """Leave out the replica, not the first nor the last, whose neighbors will miss it least; its number.

        The last takes its place as another of the same, next to itself.
        """
        shares = self.shares.tolist()
        least = max(range(1, len(shares)), key=lambda r: shares[r - 1] * shares[r])
        merged = [*shares[: least - 1], shares[least - 1] * shares[least], *shares[least + 1 :], 1.0]
        self.shares.copy_(self.shares.new_tensor(merged))
        rows = [row for r, row in enumerate(self.been_hot) if r != least]
        self.been_hot.copy_(torch.stack([*rows, rows[-1]]))
        return least
