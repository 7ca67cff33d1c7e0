"""Wrong transitions, and swaps by beta F, fail the exam by the right law."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import attrs
import pytest
import torch
from torch import Tensor

from unibound import EnergyPrior, Transition, UsageError
from unibound.energies.tempering import swap
from unibound.support import real
from unibound.testing import EXAMS, examine_prior, examine_transition
from unibound.testing.laws import energy as laws
from unibound.testing.priors import Categories, Machine, SpinMachine, Spins, Table, Well

LogF = Callable[[EnergyPrior, Tensor, float], Tensor]


def in_short(value: object) -> str:
    """A case by name: what a function prints is where it lies in memory."""
    return re.sub(r"<function (\w+) at \w+>", r"\1", str(value))


@attrs.frozen
class Redraws(Transition):
    """The move of the worlds' energies, as it should be."""

    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        return energy.gibbs(tau, 1, beta)


@attrs.frozen
class IgnoresBeta(Redraws):
    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        return energy.gibbs(tau, 1)


@attrs.frozen
class InPlace(Redraws):
    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        return tau.copy_(super().__call__(energy, tau, beta))


@attrs.frozen
class Still(Redraws):
    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        return tau.clone()


@attrs.frozen
class Attached(Redraws):
    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        return super().__call__(energy, tau, beta).requires_grad_()


@attrs.frozen
class LeavesGradients(Redraws):
    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        with torch.enable_grad():
            energy.free_energy(tau, beta).sum().backward()
        return super().__call__(energy, tau, beta)


@attrs.frozen
class Careless(Redraws):
    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        if energy.support is real:
            raise UsageError("careless moves no reals; use another transition")
        return super().__call__(energy, tau, beta)


def minus_free_energy(energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
    return -energy.free_energy(tau, beta)


def wrong_sign(energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
    return energy.free_energy(tau, beta)


def beta_f(energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
    return -beta * energy.free_energy(tau)


@torch.no_grad()
def propose_and_accept(energy: EnergyPrior, tau: Tensor, beta: float, log_f: LogF, site: int | None) -> Tensor:
    """Metropolis: another value of one site, taken with probability min(1, f(proposed) / f(tau))."""
    flat = tau.flatten(1)
    where = torch.randint(flat.shape[1], (len(tau),)) if site is None else torch.full((len(tau),), site)
    proposed, rows = flat.clone(), torch.arange(len(tau))
    proposed[rows, where] = 1 - proposed[rows, where]
    proposed = proposed.view_as(tau)
    taken = torch.rand(len(tau)).log() < log_f(energy, proposed, beta) - log_f(energy, tau, beta)
    return torch.where(taken.view(-1, *[1] * (tau.dim() - 1)), proposed, tau)


@attrs.frozen
class Flips(Transition):
    """Metropolis over bits, at any site or only at one."""

    log_f: LogF = minus_free_energy
    site: int | None = None

    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        return propose_and_accept(energy, tau, beta, self.log_f, self.site)

    def check(self, energy: EnergyPrior) -> None:
        if energy.support is not Table.support:
            raise UsageError("flips move bits; use another transition")


@attrs.frozen
class Langevin(Transition):
    """Langevin steps without the correction that would make them exact."""

    size: float = 0.5

    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        with torch.enable_grad():
            at = tau.detach().requires_grad_()
            (slope,) = torch.autograd.grad(energy.free_energy(at, beta).sum(), at)
        return tau - self.size / 2 * slope + self.size**0.5 * torch.randn_like(tau)

    def check(self, energy: EnergyPrior) -> None:
        if energy.support is not real:
            raise UsageError("langevin moves reals; use another transition")


@attrs.frozen
class HonestLangevin(Langevin):
    exact = False


@attrs.frozen
class MovesNothing(Redraws):
    def check(self, energy: EnergyPrior) -> None:
        raise UsageError("no energy is good enough; use another transition")


def failed(transition: Transition | type[Transition]) -> dict[str, str]:
    return {verdict.law: verdict.detail for verdict in examine_transition(transition) if not verdict.held}


@pytest.mark.parametrize("transition", [Redraws(), Flips(), HonestLangevin()], ids=in_short)
def test_right_ones_pass(transition: Transition) -> None:
    assert failed(transition) == {}


@pytest.mark.parametrize(
    ("transition", "law", "words"),
    [
        (IgnoresBeta(), "leaves_p_beta_invariant", "20000 draws, limit"),
        (Flips(wrong_sign), "leaves_p_beta_invariant", "is it F_beta"),
        (Flips(beta_f), "leaves_p_beta_invariant", "and not beta F"),
        (Langevin(), "leaves_p_beta_invariant", "Well over reals: .* a correction left out"),
        (InPlace(), "returns_new_states", "changes the states it is given"),
        (Attached(), "returns_new_states", "detach"),
        (LeavesGradients(), "returns_new_states", "leaves gradients"),
        (Flips(site=0), "reaches_every_state", "300 moves meet 2 of 8"),
        (Still(), "reaches_every_state", "300 moves meet 1 of 8"),
        (Careless(), "check_refuses_what_it_cannot_move", "Well over reals, which then failed: careless"),
        (MovesNothing(), "returns_new_states", "moves no energy; Table: no energy is good enough"),
    ],
    ids=in_short,
)
def test_mutant_dies(transition: Transition, law: str, words: str) -> None:
    exam = EXAMS["transition"]
    verdict = next(one for one in exam.laws if one.name == law).judge(lambda: exam.prepare(transition))
    assert not verdict.held
    assert re.search(words, verdict.detail), verdict.detail


def swap_by_beta_f(energy: EnergyPrior, states: Tensor, betas: Sequence[float]) -> tuple[Tensor, Tensor]:
    rows, swapped = list(states), []
    for r, (low, high) in enumerate(pairwise(betas)):
        a, b = rows[r], rows[r + 1]
        taken = torch.rand(len(a)).log() < (low - high) * (energy.free_energy(a) - energy.free_energy(b))
        where = taken.view(-1, *[1] * (a.dim() - 1))
        rows[r], rows[r + 1] = torch.where(where, b, a), torch.where(where, a, b)
        swapped.append(taken)
    return torch.stack(rows), torch.stack(swapped)


def swap_always(energy: EnergyPrior, states: Tensor, betas: Sequence[float]) -> tuple[Tensor, Tensor]:
    return states.flip(0), torch.ones(len(betas) - 1, states.shape[1], dtype=torch.bool)


def copy_down(energy: EnergyPrior, states: Tensor, betas: Sequence[float]) -> tuple[Tensor, Tensor]:
    states, taken = swap(energy, states, betas)
    return torch.cat([states[:1], states[2:], states[2:]]), taken  # the coldest replica, kept twice


@pytest.mark.parametrize("wrong", [swap_by_beta_f, swap_always, copy_down])
@pytest.mark.parametrize("prior", [Table, Spins, Categories, Machine, SpinMachine, Well])
def test_wrong_swap_dies(prior: type, wrong: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laws, "swap", wrong)
    exam = EXAMS["prior"]
    law = next(one for one in exam.laws if one.name == "swaps_leave_replicas_invariant")
    verdict = law.judge(lambda: exam.prepare(prior))
    assert not verdict.held
    assert "is F_beta used?" in verdict.detail


@pytest.mark.parametrize("prior", [Spins, Categories, Machine, SpinMachine, Well])
def test_the_energies_sit_the_exam_of_priors(prior: type) -> None:
    assert not [verdict for verdict in examine_prior(prior) if not verdict.held]
