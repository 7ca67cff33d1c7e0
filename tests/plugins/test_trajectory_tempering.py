"""Replicas at earlier weights: each keeps its own law, and they carry chains between phases."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unibound import EnergyPrior, UsageError
from unibound.energies.past import Past
from unibound.energies.tempering import Flow
from unibound.testing import examine_prior
from unibound.testing.listing import all_states, number, scatter
from unibound.testing.verdict import chi_square

RBM = pytest.importorskip("unibound_plugins.priors.rbm").RBM
SpinRBM = pytest.importorskip("unibound_plugins.priors.spin_rbm").SpinRBM
PottsRBM = pytest.importorskip("unibound_plugins.priors.potts_rbm").PottsRBM
GaussianRBM = pytest.importorskip("unibound_plugins.priors.gaussian_rbm").GaussianRBM


class SwapsByTheNewest(Past):
    """Moves replicas by the weights of each, and swaps them by those of now, which accepts everything."""

    swapping, mistaken = False, True

    @contextmanager
    def at(self, energy: nn.Module, rung: int) -> Iterator[None]:
        with super().at(energy, 99 if self.swapping == self.mistaken else rung):
            yield

    def swapped(self, energy: EnergyPrior, flow: Flow, states: Tensor) -> Tensor:
        self.swapping = True
        try:
            return super().swapped(energy, flow, states)
        finally:
            self.swapping = False


class MovesByTheNewest(SwapsByTheNewest):
    """The other way round."""

    mistaken = False


def grown(kind: type, past: type = Past, chains: int = 20_000, **settings: Any):
    """A machine with three kept weights on the way to those that it has, every replica drawn from its own law."""
    prior = scatter(kind((3,), num_hidden=2, num_chains=chains, num_snapshots=3, **settings), 1)
    prior.past.__class__ = past
    for rung, share in enumerate((0.1, 0.4, 0.7)):
        for kept, parameter in zip(prior.past.buffers(), prior.parameters(), strict=True):
            kept[rung] = share * parameter.data
    states = all_states(prior.support, (3,))
    for rung, replica in enumerate([*prior.replicas, prior.chains]):
        replica.copy_(states[law(prior, rung).multinomial(chains, replacement=True)])
    return prior


def law(prior, rung: int) -> Tensor:
    """Of every state, with the weights of a rung [S]."""
    with torch.no_grad(), Past.at(prior.past, prior, rung):
        return (-prior.free_energy(all_states(prior.support, (3,)))).softmax(0)


def misfits(prior) -> list[float]:
    """By how much the chains of each replica miss its law, relative to what chance allows."""
    found = []
    for rung, replica in enumerate([*prior.replicas, prior.chains]):
        statistic, limit = chi_square(number(replica, prior.support), law(prior, rung))
        found.append(statistic / limit)
    return found


@pytest.mark.parametrize("kind", [RBM, SpinRBM, PottsRBM])
def test_every_replica_keeps_its_law(kind: type) -> None:
    torch.manual_seed(0)
    prior = grown(kind)
    for _ in range(5):
        prior.advance()
    assert prior.flow.shares.min() > 0.3  # they do swap
    assert max(misfits(prior)) < 1


@pytest.mark.parametrize("wrong", [SwapsByTheNewest, MovesByTheNewest])
def test_mutant_dies(wrong: type) -> None:
    torch.manual_seed(0)
    prior = grown(RBM, wrong)
    for _ in range(5):
        prior.advance()
    assert max(misfits(prior)) > 1


def test_chains_come_to_that_law_from_anywhere() -> None:
    torch.manual_seed(0)
    prior = grown(RBM, chains=5000)
    prior.replicas.zero_()
    prior.chains.fill_(1.0)
    for _ in range(40):
        prior.advance()
    assert max(misfits(prior)) < 1


def test_weights_that_are_kept_anew_leave_the_laws_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    prior = grown(RBM)
    first = [kept[0].clone() for kept in prior.past.buffers()]
    monkeypatch.setattr("unibound.energies.past.LEAST", 1.0)
    prior.advance()
    assert all(torch.equal(kept[-1], own) for kept, own in zip(prior.past.buffers(), prior.parameters(), strict=True))
    assert all(torch.equal(kept[0], before) for kept, before in zip(prior.past.buffers(), first, strict=True))
    monkeypatch.undo()
    for _ in range(5):
        prior.advance()
    assert max(misfits(prior)) < 1
    assert prior.flow.shares[-1] > 0.99  # between weights that are the same


@pytest.mark.parametrize("steps_apart", [False, True])
def test_they_carry_chains_from_one_phase_to_the_other(steps_apart: bool) -> None:
    """A ferromagnet whose weights have grown; all chains but those of its first weights are put into one phase."""
    torch.manual_seed(0)
    prior = SpinRBM((12,), num_hidden=12, num_chains=200, steps=5, num_snapshots=8, init_scale=0.0)
    weights = torch.linspace(0, 0.2, 41) if steps_apart else torch.tensor([0.2])
    for weight in weights:
        prior.weight.data.fill_(weight)
        prior.advance()
    prior.chains.fill_(1.0)
    prior.replicas.fill_(1.0)
    for _ in range(60):
        prior.advance()
    other = (prior.chains.mean(1) < 0).double().mean().item()
    if steps_apart:
        assert other == pytest.approx(0.5, abs=0.15)
        assert prior.flow.trips > 0.02
    else:  # nothing lies between the first weights and those of now
        assert other < 0.05
        assert prior.flow.trips < 0.005


@pytest.mark.parametrize("kind", [RBM, SpinRBM, PottsRBM, GaussianRBM])
def test_what_is_kept_is_saved(kind: type) -> None:
    prior = scatter(kind((3,), num_hidden=2, num_snapshots=2), 1)
    for _ in range(3):
        prior.advance()
    again = kind((3,), num_hidden=2, num_snapshots=2).double()
    again.load_state_dict(prior.state_dict())
    assert torch.equal(again.replicas, prior.replicas)
    for kept, before in zip(again.past.buffers(), prior.past.buffers(), strict=True):
        assert torch.equal(kept, before)
    with torch.no_grad(), prior.past.at(prior, 0):
        assert not torch.equal(prior.weight, again.weight)  # the first ones, before they were scattered
    assert torch.equal(prior.weight, again.weight)


@pytest.mark.parametrize("kind", [RBM, GaussianRBM])
def test_it_sits_the_exam(kind: type) -> None:
    def make(shape: tuple[int, ...]):
        return kind(shape, num_hidden=3, num_snapshots=2)

    wrong = [verdict for verdict in examine_prior(make) if not verdict.held]
    assert not wrong
    assert make((2,)).past is not None


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="num_snapshots must be 0, or at least 2, not 1"):
        RBM((3,), num_snapshots=1)
    with pytest.raises(UsageError, match="set one of them"):
        GaussianRBM((3,), num_snapshots=3, num_replicas=3)
