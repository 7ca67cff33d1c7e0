"""An energy is moved by whatever moves it: its own Gibbs steps, or the transition it was given; and replicas swap."""

import pytest
import torch
from torch import Tensor

from unibound import EnergyPrior, Transition, UsageError
from unibound.energies.tempering import swap
from unibound.partition import annealing, enumeration, schedules
from unibound.testing.listing import number, scatter
from unibound.testing.priors import Machine, Table
from unibound.testing.verdict import chi_square


class Recorded(Transition):
    """Gibbs steps, and the temperatures they were made at."""

    def __init__(self) -> None:
        self.betas: list[float] = []

    def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
        self.betas.append(beta)
        return energy.gibbs(tau, 1, beta)


class Nearly(Recorded):
    exact = False


class Immobile(Table):
    """An energy without a move of its own."""

    gibbs = EnergyPrior.gibbs


def energy(kind: type[Table] = Table, **options) -> Table:
    torch.manual_seed(0)
    return scatter(kind((3,), **options), 2)


def test_moves_are_those_of_the_transition():
    prior = energy()
    torch.manual_seed(1)
    own = prior.move(prior.chains, 3, 0.4)
    prior.transition = recorded = Recorded()
    torch.manual_seed(1)
    assert torch.equal(prior.move(prior.chains, 3, 0.4), own)
    assert recorded.betas == [0.4, 0.4, 0.4]
    recorded.betas.clear()
    prior.advance()
    assert recorded.betas == [1.0]
    recorded.betas.clear()
    prior.anneal(prior.base_sample(2), torch.tensor([0.0, 0.5, 1.0]))
    assert recorded.betas == [0.5, 1.0]


def test_an_energy_without_a_move_says_so_and_takes_a_transition():
    prior = energy(Immobile)
    with pytest.raises(UsageError, match="Immobile has no move of its own; choose a transition") as caught:
        prior.advance()
    assert len(str(caught.value).splitlines()) == 1

    class Anew(Transition):
        def __call__(self, energy: EnergyPrior, tau: Tensor, beta: float) -> Tensor:
            return energy.base_sample(len(tau))

    prior.transition = Anew()
    prior.advance()
    assert prior.chains.shape == (5, 3)


@pytest.mark.parametrize(("transition", "heuristic"), [(None, False), (Recorded(), False), (Nearly(), True)])
def test_what_is_annealed_by_a_move_that_is_only_nearly_right_is_heuristic(transition, heuristic):
    prior = energy()
    prior.transition = transition
    assert prior.moves_exactly != heuristic
    path = schedules.make("linear", 20)
    both, _ = annealing.sandwich(prior, path, 20, 10, prior.base_sample(20), lambda done: None)
    assert both.lower.heuristic == heuristic


@pytest.mark.parametrize("kind", [Table, Machine])
def test_tempered_chains_keep_every_temperature(kind: type[Table]):
    """Replicas that began as exact draws are such after moves and swaps; the last is the one that is read."""
    prior, betas = energy(kind), (0.0, 0.4, 1.0)
    states = prior.states
    log_p = {beta: (-prior.free_energy(states, beta)).log_softmax(0).detach() for beta in betas}
    count = 20_000
    starts = [states[log_p[beta].exp().multinomial(count, replacement=True)] for beta in betas]
    tempered = kind((3,), num_chains=count).double()
    tempered.betas, tempered.replicas = betas, torch.stack(starts[:-1])
    tempered.load_state_dict(prior.state_dict() | {"chains": starts[-1], "replicas": tempered.replicas})
    for _ in range(3):
        tempered.advance()
    for beta, ends in zip(betas, (*tempered.replicas, tempered.chains), strict=True):
        statistic, limit = chi_square(number(ends), log_p[beta].exp())
        assert statistic <= limit
    assert torch.equal(tempered.persistent(7), tempered.chains[:7])


def test_the_share_of_swaps_is_what_it_should_be():
    prior, betas = energy(Machine), (0.3, 1.0)
    states = prior.states
    free = torch.stack([prior.free_energy(states, beta) for beta in betas]).detach()  # [2, S]
    p = (-free).softmax(1)
    gain = free[0].unsqueeze(1) + free[1] - free[0] - free[1].unsqueeze(1)  # [a, b]
    exact = (p[0].unsqueeze(1) * p[1] * gain.exp().clamp(max=1)).sum().item()
    torch.manual_seed(3)
    count = 40_000
    drawn = torch.stack([states[row.multinomial(count, replacement=True)] for row in p])
    kept = drawn.clone()
    ends, taken = swap(prior, drawn, betas)
    assert torch.equal(drawn, kept)
    assert taken.double().mean().item() == pytest.approx(exact, abs=4.75 * (exact * (1 - exact) / count) ** 0.5)
    assert torch.equal(ends[0][taken[0]], drawn[1][taken[0]])
    assert torch.equal(ends[:, ~taken[0]], drawn[:, ~taken[0]])


@pytest.mark.parametrize("betas", [(0.5,), (0.0, 0.0, 1.0), (-0.1, 1.0), (1.0, 0.5)])
def test_temperatures_that_do_not_rise_to_one_are_refused(betas: tuple[float, ...]):
    class Tempered(Table):
        def __init__(self) -> None:
            EnergyPrior.__init__(self, torch.zeros(2, 3), 1, betas)

    with pytest.raises(UsageError, match="betas of replicas must rise"):
        Tempered()


def test_listing_is_what_annealing_by_a_transition_finds():
    prior = energy(Machine)
    prior.transition = Recorded()
    torch.manual_seed(5)
    _, log_w = prior.anneal(prior.base_sample(4000), torch.linspace(0, 1, 21).double())
    weights = (log_w + prior.base_log_z() - enumeration.log_sum(prior)).exp()
    assert abs(weights.mean().item() - 1) < 4.75 * weights.std().item() / len(weights) ** 0.5
