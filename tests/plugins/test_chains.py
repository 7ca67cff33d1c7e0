"""Persistent chains whose number changes in training, or by what is loaded."""

from itertools import pairwise

import pytest
import torch
from unibound_plugins.priors import RBM

from unibound.energies.chains import keep
from unibound.testing.listing import all_states, number, scatter


def machine(**settings: int) -> RBM:
    """A machine of three bits that is far from even."""
    torch.manual_seed(0)
    return scatter(RBM((3,), num_hidden=2, init_scale=1.5, **settings), seed=1, scale=1.5)


def test_chains_that_there_are_go_on_as_they_are() -> None:
    rbm = machine(num_chains=4, num_replicas=3)
    rbm.advance()
    chains, replicas = rbm.chains.clone(), rbm.replicas.clone()
    keep(rbm, 7)
    assert rbm.chains.shape == (7, 3)
    assert rbm.replicas.shape == (2, 7, 3)
    assert torch.equal(rbm.chains[:4], chains)
    assert torch.equal(rbm.replicas[:, :4], replicas)
    keep(rbm, 2)
    assert torch.equal(rbm.chains, chains[:2])
    assert torch.equal(rbm.replicas, replicas[:, :2])
    rbm.advance()  # and move on, swaps included
    keep(rbm)
    assert (len(rbm.chains), rbm.steps) == (4, 5)


def test_as_many_as_there_are_draw_nothing() -> None:
    rbm = machine(num_chains=4)
    before = torch.get_rng_state()
    keep(rbm, 4, 9)
    assert rbm.steps == 9
    assert torch.equal(torch.get_rng_state(), before)


def shares(states: torch.Tensor) -> torch.Tensor:
    return torch.bincount(number(states, RBM.support), minlength=8) / len(states)


def test_new_chains_are_draws_at_the_temperature_of_their_replica() -> None:
    """All that there are sit in one state: copies of it would count it again."""
    rbm, new = machine(num_chains=1, num_replicas=3), 20000
    rbm.chains.fill_(1.0), rbm.replicas.fill_(1.0)
    keep(rbm, 1 + new)
    listed = all_states(RBM.support, (3,)).double()
    exact = [(-rbm.free_energy(listed, beta)).softmax(0) for beta in rbm.betas]
    for states, p in zip((*rbm.replicas, rbm.chains), exact, strict=True):
        deviation = (shares(states[1:]) - p) / (p * (1 - p) / new).sqrt()
        assert deviation.abs().max() < 5
    assert all((one - other).abs().max() > 0.02 for one, other in pairwise(exact))  # which such a test can tell


def test_new_chains_of_earlier_weights_are_draws_by_these() -> None:
    rbm, new = machine(num_chains=1, num_snapshots=2), 20000
    with rbm.past.at(rbm, 0):
        then = (-rbm.free_energy(all_states(RBM.support, (3,)).double())).softmax(0).detach()
    keep(rbm, 1 + new)
    for states in rbm.replicas:
        assert ((shares(states[1:]) - then) / (then * (1 - then) / new).sqrt()).abs().max() < 5


def test_new_chains_have_not_been_at_the_hottest_temperature() -> None:
    rbm = machine(num_chains=3, num_replicas=2)
    rbm.flow.been_hot.fill_(True)
    keep(rbm, 5)
    assert rbm.flow.been_hot.tolist() == [[True] * 3 + [False] * 2] * 2


@pytest.mark.parametrize("replicas", [1, 3])
def test_any_number_of_them_is_loaded(replicas: int) -> None:
    saved, other = machine(num_chains=4, num_replicas=replicas), machine(num_chains=2, num_replicas=replicas)
    keep(saved, 6)
    other.load_state_dict(saved.state_dict())
    assert torch.equal(other.chains, saved.chains)
    assert torch.equal(other.replicas, saved.replicas)
    other.advance()
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict(RBM((4,), num_hidden=2, num_chains=6, num_replicas=replicas).state_dict())
