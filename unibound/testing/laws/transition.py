"""The exam of a transition: it moves the states of every energy that it accepts, and leaves exp(-F_beta) as it is."""

from collections.abc import Callable

import attrs
import torch

from unibound.energies.energy import EnergyPrior
from unibound.energies.transition import Transition
from unibound.errors import UsageError
from unibound.prior import Prior
from unibound.support import describe
from unibound.testing.laws import prior
from unibound.testing.laws.prior import NUM_DRAWS
from unibound.testing.priors import Categories, Machine, SpinMachine, Spins, Table, Well
from unibound.testing.verdict import demand, in_words

ENERGIES = (Table, Spins, Categories, Machine, SpinMachine, Well)
BETAS = (0.0, 0.5, 1.0)
STEPS = (1, 10)
"""Moves after which draws must still be draws: a correction that is left out shows only after many."""
PATIENCE = 300
"""Moves within which chains must have met every state of an energy of few."""


@attrs.frozen(eq=False)
class Subject:
    """A transition, and the energies it can move.

    Args:
        transition: with its settings as they are by default.
        energies: those its `check` accepts, by name, each with the transition set and its states listed.
    """

    transition: Transition
    energies: dict[str, prior.Subject]

    @classmethod
    def of(cls, plugin: Transition | Callable[[], Transition]) -> "Subject":
        """Prepare a transition, or what makes one when called."""
        transition = plugin if isinstance(plugin, Transition) else plugin()
        accepted, refusals = dict[str, prior.Subject](), list[str]()
        for energy in ENERGIES:
            subject = prior.Subject.of(energy)
            known = _energy(subject.prior)
            try:
                transition.check(known)
            except UsageError as error:
                refusals.append(f"{energy.__name__}: {error}")
                continue
            known.transition = transition
            accepted[f"{energy.__name__} over {describe(energy.support)}"] = subject
        demand(bool(accepted), f"moves no energy; {'; '.join(refusals)}")
        return cls(transition, accepted)


def check_refuses_what_it_cannot_move(subject: Subject) -> str:
    """An energy that `check` accepts can be moved."""
    for name, known in subject.energies.items():
        energy = _energy(known.prior)
        try:
            subject.transition(energy, energy.sample(4), 0.5)
        except UsageError as error:
            demand(False, f"check accepted {name}, which then failed: {error}; raise UsageError in check")
    return f"moves {', '.join(subject.energies)}"


def returns_new_states(subject: Subject) -> str:
    """It maps [M, *Z] to new, detached states of the support, in their dtype; energy and seed decide all of it."""
    for name, known in subject.energies.items():
        for shape in (tuple(known.prior.event_shape), (2, 1)):
            for dtype in (torch.float32, torch.float64):
                energy = _energy(known.make(shape, 2, dtype))
                tau, before = energy.sample(50), {key: one.clone() for key, one in energy.state_dict().items()}
                kept, ends = tau.clone(), []
                for gradients in (True, False):
                    torch.manual_seed(7)
                    with torch.set_grad_enabled(gradients):
                        ends.append(subject.transition(energy, tau, 0.5))
                end = ends[0]
                demand(torch.equal(tau, kept), f"{name}: it changes the states it is given; return a new tensor")
                demand(end is not tau, f"{name}: it returns the tensor it is given; return a new one")
                demand(end.shape == tau.shape, f"{name}: states {list(tau.shape)} come back as {list(end.shape)}")
                demand(end.dtype == dtype, f"{name}: states in {dtype} come back in {end.dtype}")
                demand(not end.requires_grad, f"{name}: the states it returns carry a gradient; detach them")
                assert energy.support is not None
                inside = bool(energy.support.check(end).all())
                demand(inside, f"{name}: it moves {describe(energy.support)} to other values")
                demand(
                    torch.equal(*ends),
                    f"{name}: under one seed it moves otherwise without gradients, where `move` calls it; take those "
                    "it needs within torch.enable_grad()",
                )
                same = all(torch.equal(one, before[key]) for key, one in energy.state_dict().items())
                demand(same, f"{name}: it changes the energy")
                clean = all(parameter.grad is None for parameter in energy.parameters())
                demand(clean, f"{name}: it leaves gradients in the energy's parameters; use torch.autograd.grad")
    return "new, detached, in float32 and float64"


def leaves_p_beta_invariant(subject: Subject) -> str:
    """Exact draws of exp(-F_beta) are such after moves, at beta 0, 1/2 and 1; where it says so (`exact`)."""
    worst: dict[str, float] = {}
    for name, known in subject.energies.items():
        for beta in BETAS:
            # Reals show a bias less sharply than states that are counted.
            start = known.draws(beta, NUM_DRAWS if known.listed else 3 * NUM_DRAWS)
            for steps in STEPS:
                statistic, limit, what = known.fit(_energy(known.prior).move(start, steps, beta), known.log_p(beta))
                demand(
                    statistic <= limit or not subject.transition.exact,
                    f"{name}: {steps} moves at beta = {beta} carry draws of exp(-F_beta) away from it: {what}; is it "
                    "F_beta that decides, and not beta F, or is a correction left out? One that is only nearly "
                    "invariant says exact = False",
                )
                worst[name] = max(worst.get(name, 0.0), statistic / limit)
    claim = "" if subject.transition.exact else "it declares itself inexact; "
    return f"{claim}largest statistic, relative to its limit: {in_words(worst)}"


def reaches_every_state(subject: Subject) -> str:
    """From one state, chains of moves meet every other, where these can be listed; over reals, every chain moves."""
    numbers = {}
    for name, known in subject.energies.items():
        tau = known.taus[:1].expand(2000, *known.taus.shape[1:])
        if not known.listed:
            start = known.draws(1.0, 2000)
            still = (_energy(known.prior).move(start, 20) == start).flatten(1).all(1).double().mean().item()
            demand(still < 0.5, f"{name}: 20 moves leave {still:.0%} of the chains where they are")
            continue
        met, moves = tau[:1], 0
        while len(met) < len(known.taus) and moves < PATIENCE:
            tau, moves = _energy(known.prior).move(tau, 1), moves + 1
            met = torch.cat([met, tau]).unique(dim=0)
        demand(len(met) == len(known.taus), f"{name}: {moves} moves meet {len(met)} of {len(known.taus)} states")
        numbers[name] = moves
    return f"moves until all were met: {in_words(numbers)}"


def _energy(made: Prior) -> EnergyPrior:
    assert isinstance(made, EnergyPrior)
    return made


LAWS = (check_refuses_what_it_cannot_move, returns_new_states, leaves_p_beta_invariant, reaches_every_state)
