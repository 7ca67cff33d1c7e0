"""The flow of replicas between temperatures: what is a round trip, and when a run says that chains are stuck."""

import pytest
import torch

from unibound.energies.tempering import Flow
from unibound.runs.watch import Watched
from unibound.testing.listing import scatter
from unibound.testing.priors import Machine


def swapped(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.bool)


def test_a_round_trip_is_from_cold_to_hot_and_back() -> None:
    flow = Flow(3, 2)
    flow.follow(swapped([0, 0], [0, 0]))
    flow.follow(swapped([0, 0], [1, 0]))  # between warm and cold is no trip
    assert flow.trips == 0
    flow.follow(swapped([1, 0], [0, 0]))  # what was hot is warm in the first chain
    assert flow.trips == 0
    flow.follow(swapped([0, 0], [1, 0]))  # and comes home
    assert flow.trips == pytest.approx(0.5 / 4)
    flow.follow(swapped([0, 0], [1, 0]))
    flow.follow(swapped([0, 0], [1, 0]))  # coming home again without having been away
    assert flow.trips == pytest.approx(0.5 / 6)
    assert flow.shares.tolist() == pytest.approx([1 / 12, 4 / 12])


def test_what_passes_all_temperatures_in_one_sweep_has_come_home() -> None:
    flow = Flow(3, 1)
    flow.follow(swapped([0], [0]))
    flow.follow(swapped([1], [1]))
    assert flow.trips == pytest.approx(0.5)


def test_the_flow_is_saved_with_the_chains_and_does_not_trouble_those_without() -> None:
    assert Machine((3,)).flow is None
    assert not any("flow" in name for name in Machine((3,)).state_dict())


@pytest.mark.parametrize(
    ("watched", "words"),
    [
        (Watched(chain_moved=0.9), None),
        (Watched(chain_moved=0.001), "by 0.1% of what independent draws differ by"),
        (Watched(chain_moved=0.001, round_trips=3.0, swapped=0.5), None),  # slow at 1, and fed from above
        (Watched(chain_moved=0.9, round_trips=0.0, swapped=0.5), "no chain has come back"),
        (
            Watched(chain_moved=0.9, chain_crossed=0.01),
            "two phases, and 10 training steps go 1.0% of the way",
        ),
        (Watched(chain_moved=0.9, chain_crossed=0.0, round_trips=3.0), None),
        (Watched(chain_moved=0.9, chain_crossed=0.1), None),
        (Watched(), None),
    ],
    ids=str,
)
def test_a_run_says_when_chains_are_stuck(watched: Watched, words: str | None) -> None:
    assert watched.stuck is None if words is None else words in (watched.stuck or "")


def test_replicas_of_a_prior_are_followed() -> None:
    torch.manual_seed(0)
    rbm = pytest.importorskip("unibound_plugins.priors.rbm").RBM
    prior = scatter(rbm((4,), num_hidden=3, num_replicas=4), 1, 0.3)
    for _ in range(50):
        prior.advance()
    assert 0.5 < prior.flow.shares.min() <= 1
    assert prior.flow.trips > 0.01
    again = rbm((4,), num_hidden=3, num_replicas=4).double()
    again.load_state_dict(prior.state_dict())
    assert torch.equal(again.flow.been_hot, prior.flow.been_hot)
    assert again.flow.trips == prior.flow.trips


@pytest.mark.parametrize(("num_replicas", "mixes"), [(1, False), (8, True)])
def test_replicas_carry_chains_from_one_phase_to_the_other(num_replicas: int, mixes: bool) -> None:
    """A ferromagnet of two phases, equally likely; all chains begin in one of them."""
    spins = pytest.importorskip("unibound_plugins.priors.spin_rbm").SpinRBM
    torch.manual_seed(0)
    prior = spins((12,), num_hidden=12, num_chains=200, steps=5, num_replicas=num_replicas)
    prior.weight.data.fill_(0.2)
    prior.chains.fill_(1.0)
    prior.replicas.fill_(1.0)
    for _ in range(60):
        prior.advance()
    other = (prior.chains.mean(1) < 0).double().mean().item()
    assert other == pytest.approx(0.5, abs=0.15) if mixes else other < 0.05
