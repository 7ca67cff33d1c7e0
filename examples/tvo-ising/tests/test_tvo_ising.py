"""Both plugins sit the exam of the built-in ones, and their own tests."""

import itertools
import math

import pytest
import torch
from tvo_ising.ising import Ising
from tvo_ising.tvo import TVO

from unibound import registries
from unibound.testing import EXAMS, World, expected_bound, plugins_of


@pytest.mark.parametrize(("kind", "name", "plugin"), plugins_of("tvo_ising"))
def test_every_law_holds(kind, name, plugin):
    for verdict in EXAMS[kind].sit(plugin):
        assert verdict.held, f"{name}: {verdict.law}: {verdict.detail}"


def test_between_the_elbo_and_the_k_particle_bound():
    world = World.of_bits(3)
    ladder = [*(expected_bound(world, TVO(2, num_steps)) for num_steps in (1, 2, 4, 8)), world.bound(2)]
    for lower, upper in itertools.pairwise(ladder):
        assert (lower <= upper).all()
    torch.testing.assert_close(ladder[0], world.bound(1))
    torch.testing.assert_close(expected_bound(world, TVO(2, 2000)), world.bound(2), atol=0.01, rtol=0)


@pytest.fixture
def chain():
    """A frustrated chain of 30 spins, too long to be listed."""
    torch.manual_seed(0)
    prior = Ising((30,)).eval()
    for parameter in prior.parameters():
        parameter.data.normal_(0, 1)
    return prior


def test_the_transfer_matrix_is_exact():
    prior = Ising((5,))
    for parameter in prior.parameters():
        parameter.data.normal_(0, 1)
    exact = registries()["partition_estimator"]["exact"]().fit(prior).log_z.value
    assert math.isclose(prior.exact_log_z(), exact, abs_tol=1e-5)


@pytest.mark.parametrize("name", ["ais", "bdmc"])
def test_partition_estimators_need_not_know_it(chain, name):
    found = registries()["partition_estimator"][name](num_chains=500, num_temperatures=1000).fit(chain).log_z
    assert found.stderr < 0.1
    assert abs(found.value - chain.exact_log_z()) < 5 * found.stderr
