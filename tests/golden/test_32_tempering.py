"""Replicas that swap, by the kernel of all of them; populations, by everything that can happen to two walkers."""

import itertools
import math
from typing import Any

import pytest
import torch
from golden import Item, items, tensor
from listing import bits
from machines import Played, machine
from torch import Tensor

from unibound.energies.tempering import log_swap, swap
from unibound.partition import annealing, enumeration, population, schedules

CASE = "32_tempering"


def of_kind(name: str) -> list[Any]:
    return [param for param in items(CASE) if param.values[0] is None or (name in param.values[0].input)]


def swap_kernel(rbm, states: Tensor, low: float, high: float) -> Tensor:
    """Probability of a swap [S, S] from states a at low, b at high."""
    a, b = (index.flatten() for index in torch.meshgrid(*[torch.arange(len(states))] * 2, indexing="ij"))
    return log_swap(rbm, states[a], states[b], low, high).clamp(max=0).exp().view(len(states), -1)


def tempered_kernel(rbm, states: Tensor, betas: list[float]) -> Tensor:
    """One Gibbs step of three replicas and the swaps of both pairs: [S^3, S^3]."""
    size = len(states)
    moves = [rbm.log_transition(states, beta).exp().detach() for beta in betas]
    total = torch.einsum("ai,bj,ck->abcijk", *moves)
    hot, cold = (swap_kernel(rbm, states, *pair) for pair in itertools.pairwise(betas))
    rate = hot.view(1, 1, 1, size, size, 1)  # of a state i, j, k before the swap
    total = total * (1 - rate) + (total * rate).transpose(3, 4)
    rate = cold.view(1, 1, 1, 1, size, size)
    total = total * (1 - rate) + (total * rate).transpose(4, 5)
    return total.reshape(size**3, size**3)


def autocorrelations(kernel: Tensor, p: Tensor, values: Tensor, lags: list[int]) -> dict[str, float]:
    mean = p @ values
    spread = p @ (values - mean).square()
    after = {lag: torch.linalg.matrix_power(kernel, lag) @ values for lag in lags}
    return {str(lag): ((p * (values - mean)) @ (ends - mean) / spread).item() for lag, ends in after.items()}


@pytest.mark.parametrize("item", of_kind("pair_states"))
def test_replicas(item: Item) -> None:
    rbm, betas = machine(item.input, item.input["base_bias"]), item.input["betas"]
    states = bits(len(item.input["b"]))
    free = torch.stack([rbm.free_energy(states, beta).detach() for beta in betas])
    log_z = (-free).logsumexp(1)
    p = (-free).softmax(1)
    accept = [
        [log_swap(rbm, states[[a]], states[[b]], *pair).clamp(max=0).item() for pair in itertools.pairwise(betas)]
        for a, b in item.input["pair_states"]
    ]
    mean = [
        (p[r] @ swap_kernel(rbm, states, low, high) @ p[r + 1]).item()
        for r, (low, high) in enumerate(itertools.pairwise(betas))
    ]
    lags = [int(lag) for lag in item.expected["autocorrelation_bit0_tempered"]]
    kernel = tempered_kernel(rbm, states, betas)
    joint = torch.einsum("a,b,c->abc", *p).flatten()
    assert torch.allclose(joint @ kernel, joint, atol=1e-12)  # every temperature is kept
    gibbs = rbm.log_transition(states).exp().detach()
    bit0 = states[:, 0]
    eigenvalues = torch.linalg.eigvals(gibbs).abs().sort(descending=True).values
    item.check(
        log_Z=log_z,
        log_accept=accept,
        mean_acceptance=mean,
        autocorrelation_bit0_tempered=autocorrelations(kernel, joint, bit0.repeat(len(states) ** 2), lags),
        autocorrelation_bit0_gibbs=autocorrelations(gibbs, p[-1], bit0, lags),
        second_eigenvalue_gibbs=eigenvalues[1],
    )


@pytest.mark.parametrize("item", of_kind("pair_states"))
def test_tempered_chains_have_that_autocorrelation(item: Item) -> None:
    """What the library's own replicas do, and not only its swap probabilities put together."""
    torch.manual_seed(0)
    count, betas = 40_000, item.input["betas"]
    rbm = machine(item.input, item.input["base_bias"])
    states = bits(len(item.input["b"]))
    p = torch.stack([(-rbm.free_energy(states, beta)).softmax(0) for beta in betas]).detach()
    start = torch.stack([states[row.multinomial(count, replacement=True)] for row in p])
    end, _ = swap(rbm, torch.stack([rbm.move(tau, 1, beta) for tau, beta in zip(start, betas, strict=True)]), betas)
    pair = torch.stack([start[-1, :, 0], end[-1, :, 0]])
    assert abs(torch.corrcoef(pair)[0, 1] - item.expected["autocorrelation_bit0_tempered"]["1"]) < 4.75 / count**0.5


def populations(rbm: Played, item: Item, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Probability and log Z_hat of everything that can happen to two walkers at three temperatures."""
    states, betas = bits(len(item.input["b"])), item.input["betas"]
    first = (-rbm.free_energy(states, 0.0)).softmax(0).detach()
    move = rbm.log_transition(states, betas[1]).exp().detach()
    pairs = list(itertools.product(range(len(states)), repeat=2))
    found, parents = [], [torch.tensor([pair]) for pair in itertools.product(range(2), repeat=2)]
    shares: list[Tensor] = []
    for begin, chosen, end in itertools.product(pairs, parents, pairs):
        rbm.play(torch.stack([states[list(begin)], states[list(end)], states[[0, 0]]]))

        def draw(share: Tensor, count: int, replacement: bool, chosen: Tensor = chosen) -> Tensor:
            shares.append(share)
            return chosen

        monkeypatch.setattr(Tensor, "multinomial", draw)
        shares.clear()
        _, log_w = population.anneal(rbm, 1, item.input["walkers"], schedules.of(betas), threshold=1.0)
        monkeypatch.undo()
        before = [begin[parent] for parent in chosen[0].tolist()]
        chance = first[list(begin)].prod() * shares[0][0, chosen[0]].prod() * move[before, list(end)].prod()
        found.append((chance.item(), log_w.item()))
    return found


@pytest.mark.parametrize("item", of_kind("walkers"))
def test_populations(item: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    rbm = machine(item.input, item.input["base_bias"], Played)
    found = populations(rbm, item, monkeypatch)
    assert math.fsum(chance for chance, _ in found) == pytest.approx(1)
    log_z0 = rbm.base_log_z()
    item.check(
        log_Z=enumeration.log_sum(rbm),
        log_Z0=log_z0,
        E_Z_hat_over_Z0=math.fsum(chance * math.exp(log_w) for chance, log_w in found),
        E_log_Z_hat=log_z0 + math.fsum(chance * log_w for chance, log_w in found),
        E_log_Z_hat_ais_same_walkers=log_z0 + same_walkers(rbm, item),
    )


def same_walkers(rbm: Played, item: Item) -> float:
    """E log of the mean of two weights of plain annealing, by every path of a walker."""
    states, betas = bits(len(item.input["b"])), tensor(item.input["betas"])
    first = (-rbm.free_energy(states, 0.0)).softmax(0).detach()
    move = rbm.log_transition(states, item.input["betas"][1]).exp().detach()
    a, b = (index.flatten() for index in torch.meshgrid(*[torch.arange(len(states))] * 2, indexing="ij"))
    log_w = annealing.path_log_weight(rbm, torch.stack([states[a], states[b], states[b]]), betas)  # [S * S]
    chance = first[a] * move[a, b]
    both = torch.logaddexp(log_w.unsqueeze(1), log_w) - math.log(2)
    return (chance @ both @ chance).item()
