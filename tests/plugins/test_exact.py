"""Exact log Z, and exact draws, by listing."""

import math

import pytest
import torch
from annealed import random_rbm
from unibound_plugins.partition.exact import Exact

from unibound import UsageError
from unibound.partition import enumeration
from unibound.runs.build import build
from unibound.settings import sources
from unibound.testing.listing import all_bits
from unibound.testing.priors import Rates
from unibound.testing.verdict import chi_square

PARTS = {"model": "identity", "prior": "rbm", "partition": "exact"}


@pytest.mark.parametrize("sizes", [(6, 3), (3, 6)])
def test_draws_follow_the_model(sizes: tuple[int, int]):
    torch.manual_seed(0)
    rbm = random_rbm(1, *sizes)
    states = all_bits((sizes[0],))
    tau = enumeration.draw(rbm, 20_000, chunk_bits=2)
    index = (tau.long() << torch.arange(sizes[0])).sum(1)
    statistic, limit = chi_square(index, (-rbm.double().free_energy(states)).detach().softmax(0))
    assert statistic < limit


def test_a_sum_over_all_states_errs_on_no_side():
    log_z = Exact().fit(random_rbm(0)).log_z
    assert log_z is not None
    assert (log_z.side, log_z.stderr, log_z.trustworthy) == ("equal", 0.0, True)


def test_chunks_do_not_matter():
    rbm = random_rbm(2, 7, 9)
    values = [Exact(chunk_bits=bits).fit(rbm).log_z for bits in (1, 3, 14)]
    assert max(v.value for v in values if v) - min(v.value for v in values if v) < 1e-9


def test_a_prior_too_large_is_refused_before_training():
    settings = sources.resolve([sources.Layer({name: {"name": value} for name, value in PARTS.items()})])
    with pytest.raises(UsageError, match=r"exact would list 2\^64 states, more than 2\^24; use ais or bdmc"):
        build(settings, torch.zeros(2, 8, 8))


def test_what_is_refused():
    with pytest.raises(UsageError, match="use ais"):
        Exact(max_bits=3).fit(random_rbm(0))
    with pytest.raises(UsageError, match="EnergyPrior"):
        Exact().fit(Rates((3,)))
    rbm = random_rbm(0)
    rbm.weight.data[0, 0] = math.nan
    with pytest.raises(UsageError, match="not finite"):
        Exact().fit(rbm)
