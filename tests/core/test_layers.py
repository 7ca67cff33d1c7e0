"""Layers above one another: terms, pieces, dreams and what is refused, of `Layered` and `Upward`."""

import pytest
import torch

from unibound import Layered, Upward, UsageError
from unibound.testing import World
from unibound.testing.listing import all_bits
from unibound.testing.networks import BitGenerator, BitInference
from unibound.testing.priors import Rates, Spins, Table
from unibound.testing.verdict import chi_square


def world_of(prior: type) -> World:
    return World.of_layers(3, prior((2,)))


@pytest.mark.parametrize("prior", [Rates, Table, Spins])
def test_terms_sum_and_the_state_is_the_top(prior: type):
    world = world_of(prior)
    joint, tau = world.joint, world.every_tau()
    terms = joint.p.log_terms(world.xs, tau)
    assert terms.shape == (3, len(world.taus), 4)
    torch.testing.assert_close(terms.sum(0), joint.p.log_joint(world.xs, tau))
    torch.testing.assert_close(terms[2], joint.p.prior.log_prob(tau[..., 1:]))
    assert torch.equal(joint.p.state(world.xs, tau), tau[..., 1:])
    assert (joint.p.unnormalized is None) == (prior is Rates)
    added = joint.log_weight_terms(world.xs, tau)
    torch.testing.assert_close(added.sum(0), joint.p.log_joint(world.xs, tau) - joint.q(world.xs).log_prob(tau))
    torch.testing.assert_close(added[1:], terms[1:] - joint.q(world.xs).log_probs(tau))


@pytest.mark.parametrize("prior", [Rates, Table, Spins])
def test_p_and_q_sum_to_one(prior: type):
    world = world_of(prior)
    torch.testing.assert_close(world.log_prob().logsumexp(0), torch.zeros(()).double())
    log_q = world.joint.q(world.xs).log_prob(world.every_tau())
    torch.testing.assert_close(log_q.logsumexp(0), torch.zeros(4).double())


def test_dreams_and_what_completes_a_state_are_of_p():
    world = world_of(Rates)
    torch.manual_seed(0)
    x, tau = world.joint.p.dream(20_000)
    taus, log_p = world.taus, world.log_joint(world.every_tau()).detach()  # [S, N]
    row = (tau.unsqueeze(1) == taus).all(-1).long().argmax(1) * 4 + (x.unsqueeze(1) == world.xs).all(-1).long().argmax(
        1
    )
    statistic, limit = chi_square(row, log_p.exp().flatten())
    assert statistic <= limit
    top = taus[:1, 1:].expand(20_000, 2)
    low = world.joint.p.complete(top)
    assert torch.equal(low[:, 1:], top)
    rate = world.joint.p.generators[1](top[0]).mean.item()
    assert abs(low[:, 0].mean().item() - rate) < 4.75 * (rate * (1 - rate) / len(low)) ** 0.5


def test_persistent_dreams_are_of_the_chains():
    joint = world_of(Spins).joint
    before = joint.p.prior.chains.clone()
    _, tau = joint.p.dream(7, persistent=True)
    assert torch.equal(tau[:, 1:], before[torch.arange(7) % 5])
    assert torch.equal(joint.p.prior.chains, before)


@pytest.mark.parametrize(("generators", "sizes"), [(1, (1, 2)), (2, (2, 1)), (2, (2,)), (3, (1, 2))])
def test_numbers_that_do_not_fit_are_refused_in_one_line(generators: int, sizes: tuple[int, ...]):
    with pytest.raises(UsageError, match="give one generator per size, and the prior the last") as caught:
        Layered(Rates((2,)), [BitGenerator(1, 1)] * generators, sizes)
    assert len(str(caught.value).splitlines()) == 1


def test_a_layer_of_another_size_is_refused_in_one_line():
    with pytest.raises(UsageError, match=r"a chain of sizes \[2, 2\]") as caught:
        Upward([BitInference(3, (1,)), BitInference(1, (2,))], (2, 2))(all_bits((3,)).float())
    assert len(str(caught.value).splitlines()) == 1


def test_a_value_of_another_kind_has_no_log_probability():
    world = world_of(Rates)
    with pytest.raises(UsageError, match=r"p\(x \| tau_1\) is over bits, but the data hold 0.5"):
        world.joint.p.log_joint(torch.full((1, 2), 0.5).double(), world.taus[:1])
    with pytest.raises(UsageError, match=r"p\(tau_1 \| tau_2\) is over bits, but the data hold -1"):
        world.joint.p.log_joint(world.xs[:1], -torch.ones(1, 3).double())
