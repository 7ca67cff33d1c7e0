"""BDMC: the order of its two sides by enumeration, modes that annealing misses, and starts that are not exact."""

import attrs
import cattrs
import pytest
import torch
from annealed import Worked, expected_log_mean, missed, random_rbm
from unibound_plugins.partition.ais import AIS
from unibound_plugins.partition.bdmc import BDMC
from unibound_plugins.priors.rbm import RBM

from unibound import Sandwich
from unibound.partition import enumeration
from unibound.testing.priors import Table
from unibound.testing.verdict import FALSE_ALARM


def two_modes(num_visible: int = 12, num_hidden: int = 8) -> RBM:
    """All bits on, or all off, about equally likely, and next to nothing between; annealing begins at one of them."""
    torch.manual_seed(0)
    weight = 1.2 * (1 + 0.1 * torch.randn(num_visible, num_hidden))
    rbm = RBM.from_weights(weight, -weight.sum(1) / 2, -weight.sum(0) / 2)
    rbm.fit_base(torch.zeros(100, num_visible))
    return rbm


def test_the_sandwich_is_in_order_and_closes_with_more_chains():
    worked = Worked()
    reverse = (worked.log_f[worked.end] - worked.log_z).exp() * worked.backward
    assert reverse.sum().item() == pytest.approx(1, abs=1e-12)
    assert (reverse * (-worked.log_w).exp()).sum().log().item() == pytest.approx(-worked.log_ratio, abs=1e-12)
    lower = [expected_log_mean(worked.probability, worked.log_w, chains) for chains in (1, 2)]
    upper = [-expected_log_mean(reverse, -worked.log_w, chains) for chains in (1, 2)]
    assert lower[0] < lower[1] < worked.log_ratio < upper[1] < upper[0]


def test_log_z_lies_between():
    rbm = random_rbm(0)
    log_z = BDMC(num_temperatures=300).fit(rbm).log_z
    assert log_z is not None
    assert isinstance(log_z, Sandwich)
    assert (log_z.side, log_z.lower.side, log_z.upper.side, log_z.heuristic) == ("upper", "lower", "upper", False)
    exact = enumeration.log_sum(rbm)
    assert log_z.lower.value - FALSE_ALARM * log_z.lower.stderr < exact
    assert exact < log_z.upper.value + FALSE_ALARM * log_z.upper.stderr
    assert log_z.trustworthy


def test_a_missed_mode_is_flagged_where_ais_is_confident():
    rbm = two_modes()
    exact, ais = enumeration.log_sum(rbm), AIS(num_temperatures=20).fit(rbm).log_z
    assert ais is not None
    assert ais.trustworthy
    assert ais.value + 20 * ais.stderr < exact - 0.5
    log_z = BDMC(num_temperatures=20).fit(rbm).log_z
    assert log_z is not None
    assert not log_z.trustworthy
    assert log_z.trouble is not None
    assert "standard errors apart" in log_z.trouble


def test_a_start_that_is_not_exact_is_said_to_be_heuristic():
    rbm = random_rbm(5, 24, 22, scale=0.3)
    log_z = BDMC(num_chains=50, num_temperatures=50, num_steps=20).fit(rbm).log_z
    assert log_z is not None
    assert log_z.heuristic


def test_a_listing_that_cannot_be_drawn_from_is_heuristic_too():
    class Mute(Table):
        def enumeration(self):
            return attrs.evolve(super().enumeration(), draw=None)

    torch.manual_seed(0)
    log_z = BDMC(num_chains=50, num_temperatures=50, num_steps=20).fit(Mute((3,))).log_z
    assert log_z is not None
    assert log_z.heuristic


def test_it_is_restored_from_plain_values():
    log_z, plain = BDMC(num_chains=50, num_temperatures=50).fit(random_rbm(0)).log_z, cattrs.Converter()
    assert isinstance(log_z, Sandwich)
    assert plain.structure(plain.unstructure(log_z), Sandwich) == log_z


@pytest.mark.parametrize("count", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_the_interval_holds_log_z(count: int):
    assert missed(BDMC(), count) <= {6: 2, 200: 14}[count]
