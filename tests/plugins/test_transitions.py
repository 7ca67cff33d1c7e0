"""Moves by gradients: what goes wrong with them, what they adapt, and what they refuse."""

from pathlib import Path

import attrs
import pytest
import torch
from torch import Tensor

from unibound import EnergyPrior, Transition, UsageError
from unibound.energies.transition import accept, slope
from unibound.partition import annealing, schedules
from unibound.testing import EXAMS
from unibound.testing.laws.prior import Subject
from unibound.testing.listing import scatter
from unibound.testing.priors import Categories, Machine, SpinMachine, Table, Well

MALA = pytest.importorskip("unibound_plugins.transitions.mala").MALA
HMC = pytest.importorskip("unibound_plugins.transitions.hmc").HMC
Langevin = pytest.importorskip("unibound_plugins.transitions.langevin").Langevin
GibbsWithGradients = pytest.importorskip("unibound_plugins.transitions.gibbs_with_gradients").GibbsWithGradients


@attrs.frozen
class ForgetsTheWayBack(MALA):
    """Metropolis, as if the proposal were symmetric."""

    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        proposed, _ = self.propose(energy, tau, beta, torch.randn_like(tau))
        return accept(tau, proposed, energy.free_energy(tau, beta) - energy.free_energy(proposed, beta))


@attrs.frozen
class CooledMALA(MALA):
    """Looks at beta F, whatever the path."""

    def propose(self, energy: EnergyPrior, tau: Tensor, beta: float, noise: Tensor) -> tuple[Tensor, Tensor]:
        return super().propose(energy, tau, 1.0, noise)


@attrs.frozen
class ForgetsTheMomentum(HMC):
    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        proposed, _, _ = self.roll(energy, tau, beta, torch.randn_like(tau))
        return accept(tau, proposed, energy.free_energy(tau, beta) - energy.free_energy(proposed, beta))


@attrs.frozen
class AlwaysTakes(HMC):
    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        return self.roll(energy, tau, beta, torch.randn_like(tau))[0]


@attrs.frozen
class CalledExact(Langevin):
    exact = True
    step = 0.5


@attrs.frozen
class FlipsWhereItFalls(GibbsWithGradients):
    """The proposal is not corrected for."""

    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        total = 2 * tau.mean().round().item() if tau.min() < 0 else 1.0
        _, log_q = self._look(energy, tau, beta, total)
        site = log_q.exp().multinomial(1)
        flat = tau.flatten(1)
        proposed = flat.scatter(1, site, total - flat.gather(1, site)).view_as(tau)
        return accept(tau, proposed, energy.free_energy(tau, beta) - energy.free_energy(proposed, beta))


@pytest.mark.parametrize(
    "mutant",
    [
        ForgetsTheWayBack(step=1.0), CooledMALA(), ForgetsTheMomentum(step=0.6), AlwaysTakes(step=0.7),
        CalledExact(step=0.5), FlipsWhereItFalls(flips=1),
    ],
    ids=lambda mutant: type(mutant).__name__,
)  # fmt: skip
def test_mutant_dies(mutant: Transition) -> None:
    exam = EXAMS["transition"]
    law = next(law for law in exam.laws if law.name == "leaves_p_beta_invariant")
    verdict = law.judge(lambda: exam.prepare(mutant))
    assert not verdict.held
    assert "carry draws of exp(-F_beta) away" in verdict.detail


@pytest.mark.parametrize("transition", [MALA(step=30.0), MALA(step=0.001), HMC(step=20.0), HMC(step=0.001)], ids=str)
def test_the_step_is_adapted_in_training_and_saved(transition: Transition, tmp_path: Path) -> None:
    torch.manual_seed(0)
    prior = scatter(Well((3,), num_chains=200, steps=3), 1, 0.3)
    prior.transition = transition
    prior.quadratic.data.fill_(-1.0)  # one valley
    for _ in range(60):
        prior.advance()
    start = prior.chains.clone()
    accepted = (prior.move(start) != start).any(1).double().mean().item()
    assert accepted == pytest.approx(transition.target, abs=0.15)
    again = Well((3,), num_chains=200, steps=3).double()
    again.transition = transition
    again.load_state_dict(prior.state_dict())
    assert again.pace == prior.pace != 1
    held = prior.pace.clone()
    prior.sample(5)
    prior.anneal(start, torch.linspace(0, 1, 5).double())
    assert prior.pace == held  # a step that adapts while it is weighed would leave nothing invariant


def test_a_step_that_never_accepts_is_refused_in_one_line() -> None:
    prior = scatter(Well((3,)), 1)
    prior.transition = MALA(step=1e6)
    with pytest.raises(
        UsageError, match=r"MALA\(step=1000000.0\) moved no chain in 40 steps; give it a smaller"
    ) as caught:
        annealing.forward(prior, 20, schedules.make("linear", 40))
    assert str(caught.value).startswith("MALA(step=1000000.0) ")
    assert len(str(caught.value).splitlines()) == 1


def test_an_energy_that_is_no_number_is_refused_in_training() -> None:
    prior = scatter(Well((3,), steps=300), 1)
    prior.linear.data.fill_(torch.nan)
    prior.transition = HMC()
    before = prior.chains.clone()
    with pytest.raises(UsageError, match="accepts nothing, however small its step: the energy of Well is too rough"):
        prior.advance()
    assert torch.equal(prior.chains, before)


@pytest.mark.parametrize(
    ("transition", "energy", "words"),
    [
        (MALA(), Table, "mala moves reals, but Table is over bits"),
        (HMC(), Categories, "hmc moves reals, but Categories is over whole numbers from 0 to 2"),
        (Langevin(), SpinMachine, "langevin moves reals, but SpinMachine is over spins"),
        (GibbsWithGradients(), Well, "flips bits or spins, but Well is over reals"),
        (GibbsWithGradients(), Categories, "flips bits or spins, but Categories is over whole"),
        (GibbsWithGradients(), Table, "the free energy of Table has no gradient in tau"),
    ],
    ids=str,
)
def test_what_it_cannot_move_is_refused(transition: Transition, energy: type[EnergyPrior], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        transition.check(energy((3,)))


def test_a_slope_leaves_no_trace() -> None:
    prior = scatter(Machine((3,)), 1)
    free, grad = slope(prior, prior.chains, 0.3)
    assert torch.equal(free, prior.free_energy(prior.chains, 0.3).detach())
    assert grad.shape == prior.chains.shape
    assert all(parameter.grad is None for parameter in prior.parameters())


@pytest.mark.parametrize("transition", [MALA(step=0.5), HMC(step=0.3)], ids=str)
def test_annealing_by_it_finds_log_z(transition: Transition) -> None:
    subject = Subject.of(Well)
    prior = subject.energy_prior
    prior.transition = transition
    exact = (subject.log_measure - prior.free_energy(subject.taus)).logsumexp(0).item()
    torch.manual_seed(0)
    both, _ = annealing.sandwich(prior, schedules.make("linear", 100), 500, 0, subject.draws(1.0, 500))
    for side in both.estimates:
        assert abs(side.value - exact) < 4.75 * side.stderr < 0.3
