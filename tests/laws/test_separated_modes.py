"""Machines of 784 x 500 whose modes lie hundreds of nats apart, and whose log Z is known: annealed from even rates.

Within a group of visible units all have the same weights, so that what a state weighs depends on how many of each
group are 1, and log Z is a sum over these two numbers.
"""

import math

import attrs
import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from unibound.evaluation.certify import certify
from unibound.partition import enumeration

RBM = pytest.importorskip("unibound_plugins.priors.rbm").RBM
AIS = pytest.importorskip("unibound_plugins.partition.ais").AIS

Hidden = tuple[int, tuple[float, float], float]
"""So many hidden spins, the weight of each to the spins of either group, and its bias."""


@attrs.frozen(eq=False)
class Planted:
    """A machine over bits, given as one over spins."""

    sizes: tuple[int, int]
    hidden: tuple[Hidden, ...]
    field: float

    def machine(self) -> RBM:
        columns = [torch.tensor(weights).double().expand(count, 2) for count, weights, _ in self.hidden]
        weight = torch.cat(columns).mT.repeat_interleave(torch.tensor(self.sizes), 0)  # [V, H]
        bias = torch.cat([torch.full((count,), c) for count, _, c in self.hidden])
        return RBM.from_weights(4 * weight, 2 * (self.field - weight.sum(1)), 2 * (bias - weight.sum(0)))

    def log_mass(self) -> Tensor:
        """log of the sum over all states with k and l ones in the groups [n + 1, m + 1], as bits weigh them."""
        ones = [torch.arange(size + 1).double() for size in self.sizes]
        ways = [
            math.lgamma(n + 1) - (k + 1).lgamma() - (n - k + 1).lgamma() for n, k in zip(self.sizes, ones, strict=True)
        ]
        total = ways[0].unsqueeze(1) + ways[1]
        for count, (a, b), c in self.hidden:
            at = c - a * self.sizes[0] - b * self.sizes[1]  # where no visible unit is 1
            total = total + count * softplus(2 * (at + 2 * (a * ones[0].unsqueeze(1) + b * ones[1])))
        slopes = [2 * (self.field - sum(h[0] * h[1][g] for h in self.hidden)) for g in (0, 1)]
        return total + slopes[0] * ones[0].unsqueeze(1) + slopes[1] * ones[1]

    def draw(self, count: int, most: float = 1.0) -> Tensor:
        """Exact states [N, V]; only such as have no larger share of ones, if asked."""
        log_mass = self.log_mass()
        k, other = (torch.arange(size + 1) for size in self.sizes)
        log_mass[k.unsqueeze(1) + other > most * sum(self.sizes)] = -torch.inf
        index = log_mass.flatten().softmax(0).multinomial(count, replacement=True)
        ones = index // len(other), index % len(other)
        rank = [torch.rand(count, size).argsort(1).argsort(1) for size in self.sizes]
        return torch.cat([(r < n.unsqueeze(1)).float() for r, n in zip(rank, ones, strict=True)], 1)


FULL, COUPLED = (392, 392), math.sqrt(1.5 / (250 * 392))  # a group by itself has two phases


def four() -> Planted:
    """Each group has two phases, whatever the other does."""
    return Planted(FULL, ((250, (COUPLED, 0.0), 0.0), (250, (0.0, COUPLED), 0.0)), 0.0005)


def opposed() -> Planted:
    """The groups are in opposite phases: two modes."""
    apart = (100, (0.3 * COUPLED, -0.3 * COUPLED), 0.0)
    return Planted(FULL, ((200, (1.1 * COUPLED, 0.0), 0.0), (200, (0.0, 1.1 * COUPLED), 0.0), apart), 0.0005)


def trap(bias: float) -> Planted:
    """A broad phase, and one of nearly one state that appears at once just before beta = 1."""
    weak = ((200, (COUPLED / 2, 0.0), 0.0), (200, (0.0, COUPLED / 2), 0.0))
    return Planted(FULL, (*weak, (100, (0.02, 0.02), bias)), 2.0)


def test_the_truth_is_that_of_a_listing() -> None:
    small = Planted((4, 5), ((3, (0.3, -0.2), 0.4), (2, (0.1, 0.5), -0.7)), 0.2)
    machine = small.machine().double()
    assert small.log_mass().flatten().logsumexp(0).item() == pytest.approx(enumeration.log_sum(machine), abs=1e-5)
    few = small.draw(50, most=0.5)
    assert few.sum(1).max() <= 4


@pytest.mark.slow
@pytest.mark.parametrize("make", [four, opposed])
@pytest.mark.parametrize(
    "settings", [{"num_chains": 100}, {"num_chains": 10, "walkers": 100}], ids=["chains", "walkers"]
)
def test_modes_that_part_on_the_way_are_weighed_from_even_rates(make, settings: dict[str, int]) -> None:
    planted = make()
    truth = planted.log_mass().flatten().logsumexp(0).item()
    by_first = planted.log_mass().logsumexp(1).log_softmax(0)  # of how many ones are in the first group
    assert by_first[196] < by_first[:196].max() - 10  # a valley, which no chain crosses
    assert by_first[196] < by_first[197:].max() - 10
    found = AIS(num_temperatures=1000, **settings).fit(planted.machine())
    assert abs(found.log_z.value - truth) < 0.7


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"num_chains": 100}, {"num_chains": 10, "walkers": 100}], ids=["chains", "walkers"]
)
def test_a_mode_that_appears_at_once_is_missed_and_log_z_is_low(settings: dict[str, int]) -> None:
    """No error bar shows it; that it errs low is what it claims."""
    planted = trap(-13.485)
    truth = planted.log_mass().flatten().logsumexp(0).item()
    found = AIS(num_temperatures=1000, **settings).fit(planted.machine()).log_z
    assert found.side == "lower"
    assert found.stderr < 0.2
    assert truth - 5 < found.value < truth - 3


@pytest.mark.slow
@pytest.mark.parametrize("bias", [-13.502, -13.485])
def test_the_certificate_refuses_such_a_machine_or_is_right(bias: float) -> None:
    """Mass in both phases, which no chain joins. Nearly all in one: the data are there, and it is right."""
    planted = trap(bias)
    truth = planted.log_mass().flatten().logsumexp(0).item()
    found = certify(planted.machine(), planted.draw(500), num_chains=100, temperatures=1000, raise_cases=10)
    if bias == -13.502:
        assert found.verdict == "refused"
        assert found.test_ll is None
    else:
        assert found.verdict == "certified", found.reasons
        assert found.log_z_low < truth < found.log_z_high
        assert found.log_z_high - found.log_z_low < 0.7


@pytest.mark.slow
def test_where_no_datum_shows_a_mode_what_rests_on_proof_still_holds() -> None:
    """The upper end says that it takes it that every mode was reached, and here none of the chains could have."""
    planted = trap(-13.485)
    truth = planted.log_mass().flatten().logsumexp(0).item()
    found = certify(planted.machine(), planted.draw(500, most=0.8), num_chains=100, temperatures=1000, raise_cases=10)
    assert found.log_z_low < truth
    assert any(
        "take it that the annealed chains" in reason and "reached every mode" in reason for reason in found.reasons
    )
