"""Certificates: they hold what is true, and are refused, with the cause, where nothing can be known."""

import math

import attrs
import pytest
import torch
from torch import Tensor

from unibound import EnergyPrior, LogZ, NormalizedPrior, PartitionEstimator, Sandwich, ScaledPrior, Side, UsageError
from unibound.evaluation.certify import Certificate, certify, certify_joint, checks
from unibound.partition import annealing, enumeration, schedules
from unibound.partition.log_z import NORMAL_95
from unibound.testing.listing import all_bits, scatter
from unibound.testing.priors import Rates, Table
from unibound.testing.verdict import FALSE_ALARM
from unibound.testing.worlds import World

QUICK = {"num_chains": 50, "temperatures": 80, "raise_cases": 20}


@pytest.fixture
def prior() -> Table:
    """Images of 3 x 3 bits."""
    torch.manual_seed(0)
    return scatter(Table((3, 3)), 1, scale=1.5)


@pytest.fixture
def data(prior: Table) -> Tensor:
    torch.manual_seed(1)
    return enumeration.draw(prior, 400)


def likelihood(prior: Table, data: Tensor) -> float:
    return -checks.free_energies(prior, data).mean().item() - enumeration.log_sum(prior)


def row(certificate: Certificate, name: str):
    return next(evidence for evidence in certificate.evidence if evidence.name == name)


def test_the_sides_hold_the_truth_between_them(prior: Table, data: Tensor):
    found = certify(prior, data, **QUICK)
    assert found.verdict == "certified"
    low, high, truth = row(found, "forward AIS"), row(found, "reverse AIS"), enumeration.log_sum(prior)
    assert low.value - FALSE_ALARM * low.stderr < truth < high.value + FALSE_ALARM * high.stderr
    assert found.log_z_low < found.log_z < found.log_z_high
    # The likelihood is uncertain by log Z alone.
    unnormalized = likelihood(prior, data) + truth
    assert found.test_ll_low + found.log_z_high == pytest.approx(unnormalized, abs=1e-9)
    assert found.test_ll_high + found.log_z_low == pytest.approx(unnormalized, abs=1e-9)
    assert found.num_data == 400
    assert row(found, "forward AIS").proof
    assert row(found, "reverse AIS").proof
    assert row(found, "RAISE").of == "log p_ann"
    assert not any(evidence.name == "CSL" for evidence in found.evidence)  # a table cannot tell


def test_it_is_the_same_twice_and_leaves_no_trace(prior: Table, data: Tensor):
    before, state = prior.base_logits.clone(), torch.get_rng_state()
    first, second = (attrs.evolve(certify(prior, data, **QUICK), seconds=0.0) for _ in range(2))
    assert first == second
    assert torch.equal(prior.base_logits, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert certify(prior, data, seed=1, **QUICK).log_z != first.log_z


def test_transposed_pixels_are_refused_by_name(prior: Table, data: Tensor):
    found = certify(prior, data.mT.contiguous(), **QUICK)
    assert found.verdict == "refused"
    assert "transposed pixels" in found.reasons[0]
    assert found.test_ll is None
    assert "inverted pixels" in certify(prior, 1 - data, **QUICK).reasons[0]
    assert certify(prior, data.flatten(1).clone(), **QUICK).verdict == "certified"


def test_a_likelihood_below_the_base_rates_is_given_with_a_warning():
    fair_coins, data = Table((5,)), torch.ones(300, 5)
    found = certify(fair_coins, data, **QUICK)
    assert found.verdict == "certified"
    assert likelihood(fair_coins, data) in found.test_ll_interval
    assert any("independent pixels" in warning for warning in found.warnings)
    assert not certify(fair_coins, data, train=1 - data, **QUICK).warnings  # rates of what is nothing like them


def test_base_rates_have_not_seen_the_datum_that_they_are_held_against():
    x = all_bits((3,)).float()[[1, 6]]
    alone = checks.log_base_rate(x, x)
    assert alone.tolist() == pytest.approx([3 * math.log(1 / 3)] * 2)
    assert checks.log_base_rate(x.clone(), x).tolist() == alone.tolist()
    assert checks.log_base_rate(x[:1], x[1:]).tolist() == pytest.approx([3 * math.log(1 / 3)])


def peaked() -> Table:
    """Nearly all probability on one state that no chain of single bits finds quickly."""
    prior = scatter(Table((3, 3)), 1, scale=0.3)
    prior.energies.data[0b101100111] = -14.0
    return prior


@pytest.mark.parametrize("base", ["data", "uniform"])
def test_a_state_that_annealing_does_not_find_is_refused(base: str, unlisted: None):
    there = {"num_chains": 50, "temperatures": 3, "image": (9,), "base": base}
    found = certify(peaked(), torch.zeros(10, 3, 3), num_steps=1, **there)
    assert found.verdict == "refused"
    assert found.test_ll is None
    assert found.test_ll_low is None
    assert not any("--base" in reason for reason in found.reasons)  # no base is a cure for another
    # The model's own chains do find it, if they are given the time.
    found = certify(peaked(), torch.zeros(10, 3, 3), **there)
    assert enumeration.log_sum(peaked()) in found.log_z_interval


@pytest.fixture
def unlisted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is small enough to be listed, so that its draws are those of chains."""
    monkeypatch.setattr(annealing, "MAX_BITS", 0)


def far_from_its_base(prior: Table, temperatures: int, num_steps: int) -> Certificate:
    """What is said of a model that likes ink, annealed from paper."""
    ink, there = torch.ones(50, 3, 3), {"num_chains": 50, "image": (9,)}
    return certify(prior, ink, train=1 - ink, temperatures=temperatures, num_steps=num_steps, **there)


def test_too_few_temperatures_are_named_as_the_cause(unlisted: None):
    independent = Table((3, 3))  # one step draws all bits anew, so that nothing but temperatures is lacking
    independent.energies.data = -6 * all_bits((9,)).sum(1).float()
    found = far_from_its_base(independent, temperatures=4, num_steps=0)
    assert found.verdict == "refused"
    assert "too few temperatures" in found.reasons[-1]


def test_chains_that_do_not_mix_are_named_as_the_cause(unlisted: None):
    split = Table((3, 3))  # all paper or all ink, and a desert between the two
    split.energies.data[0], split.energies.data[-1] = -10.0, -20.0
    found = far_from_its_base(split, temperatures=40, num_steps=20)
    assert found.verdict == "refused"
    assert "do not mix" in found.reasons[-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_chains": 0}, "chain"),
        ({"temperatures": 0}, "num_temperatures"),
        ({"temperatures": "cubic"}, "unknown schedule"),
        ({"temperatures": (0.0, 0.7, 0.3, 1.0)}, "rise from 0 to 1"),
        ({"base": "noise"}, "unknown base"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"raise_cases": -1}, "raise_cases"),
        ({"data": torch.full((5, 3, 3), 0.9996)}, r"over bits, but the data hold 0\.9996;"),
        ({"data": torch.zeros(5, 4)}, "over 9 bits"),
        ({"data": torch.zeros(0, 9)}, "over 9 bits"),
        ({"prior": Rates((3, 3))}, "EnergyPrior"),
    ],
)
def test_bad_input(prior: Table, data: Tensor, change: dict, words: str):
    given = {"prior": prior, "data": data} | QUICK | change
    with pytest.raises(UsageError, match=words):
        certify(**given)


def test_weights_that_overflowed(prior: Table, data: Tensor):
    prior.energies.data[3] = math.inf
    with pytest.raises(UsageError, match="energies of the model overflowed"):
        certify(prior, data)


def surely(found: Certificate) -> tuple[float, float]:
    """Ends of the interval for the likelihood, moved apart from those of 95% to where they miss once in a million."""
    low, high = (
        found.test_ll + FALSE_ALARM / NORMAL_95 * (end - found.test_ll)
        for end in (found.test_ll_low, found.test_ll_high)
    )
    return low, high


def test_a_trained_joint():
    torch.manual_seed(0)
    world = World.of_bits(prior=Table((2,)))
    found = certify_joint(world.joint, world.xs, world.xs, num_particles=2000, **QUICK)
    assert found.verdict == "certified"
    (low, high), exact = surely(found), world.log_prob().mean().item()
    assert low < exact < high
    assert abs(row(found, "CSL").value - exact) < 0.1


def dreams() -> tuple[World, Tensor]:
    """A world with a normalized prior, and data that are its own."""
    torch.manual_seed(0)
    world = World.of_bits()
    return world, world.joint.p.dream(300)[0]


def test_a_joint_whose_prior_is_normalized():
    world, x = dreams()
    found = certify_joint(world.joint, x, x, num_particles=2000)
    assert (found.verdict, found.log_z, found.log_z_low, found.log_z_high) == ("certified", 0.0, 0.0, 0.0)
    (low, high), exact = surely(found), attrs.evolve(world, xs=x).log_prob().mean().item()
    assert low < exact < high


def test_where_nothing_is_looked_at_the_upper_end_is_open():
    world, x = dreams()
    found = certify_joint(world.joint, x, x, num_particles=2000, posterior="none")
    assert found.test_ll_high is None
    assert any("no upper end: nothing was looked at" in reason for reason in found.reasons)


def test_one_particle_is_far_from_it_and_two_ends_are_known_all_the_same():
    world, x = dreams()
    found, exact = certify_joint(world.joint, x, x, num_particles=1), attrs.evolve(world, xs=x).log_prob().mean().item()
    assert found.test_ll_low < exact < found.test_ll_high
    assert found.test_ll_high - exact < 0.3


def test_coarser_schedules_begin_and_end_where_the_fine_ones_do():
    path = schedules.coarser(schedules.make("piecewise", 101), 4)
    betas = path.at(torch.arange(path.num_temperatures + 1))
    assert (betas[0], betas[-1], len(betas)) == (0, 1, 26)


@attrs.frozen
class Shifted(PartitionEstimator):
    """The truth and a number of nats, said to err on some side, with a standard error of 0.1."""

    sides: dict[Side, float]

    def fit(self, prior: EnergyPrior) -> NormalizedPrior:
        torch.rand(7)
        found = [
            LogZ(enumeration.log_sum(prior) + nats, 0.0 if side is Side.EQUAL else 0.1, side)
            for side, nats in self.sides.items()
        ]
        return ScaledPrior(prior, Sandwich(*found) if len(found) > 1 else found[0])


LOW, HIGH = Side.LOWER, Side.UPPER
ALONE: dict[bool, Certificate] = {}
"""What is found without another estimator, of a prior and of a joint: the same each time."""


@pytest.mark.parametrize(
    ("sides", "refuted"),
    [
        ({LOW: -5.0}, None),
        ({LOW: 5.0}, "above"),
        ({HIGH: 5.0}, None),
        ({HIGH: -5.0}, "below"),
        ({Side.EQUAL: 0.0}, None),
        ({Side.EQUAL: 5.0}, "above"),
        ({Side.EQUAL: -5.0}, "below"),
        ({LOW: -5.0, HIGH: 5.0}, None),
        ({LOW: 5.0, HIGH: 5.0}, "above"),
        ({LOW: -5.0, HIGH: -5.0}, "below"),
    ],
)
@pytest.mark.parametrize("of_joint", [False, True])
def test_another_estimator_is_heard(prior: Table, data: Tensor, sides, refuted: str | None, of_joint: bool):
    world = World.of_bits(prior=Table((2,)))
    truth = enumeration.log_sum(world.p.prior if of_joint else prior)

    def judge(**partitions: PartitionEstimator) -> Certificate:
        torch.manual_seed(0)  # of the codes
        if not of_joint:
            return certify(prior, data, partitions=partitions, **QUICK)
        return certify_joint(world.joint, world.xs, world.xs, num_particles=200, partitions=partitions, **QUICK)

    if of_joint not in ALONE:
        ALONE[of_joint] = judge()
    alone, found = ALONE[of_joint], judge(mine=Shifted(sides))
    rows = {evidence.side: evidence.value for evidence in found.evidence if evidence.name == "log Z, mine"}
    assert rows == {side: pytest.approx(truth + nats) for side, nats in sides.items()}
    assert (found.log_z, found.log_z_low, found.log_z_high) == (alone.log_z, alone.log_z_low, alone.log_z_high)
    assert alone.verdict == "certified"
    if refuted is None:
        assert found.verdict == "certified"
        assert found.test_ll == alone.test_ll
    else:
        assert found.verdict == "refused"
        assert found.test_ll is None
        assert found.reasons[0].startswith(f"log Z, mine, is {refuted} ")
        assert "annealing" in found.reasons[0]


def test_an_estimator_with_nothing_to_say_is_sent_away(prior: Table, data: Tensor):
    class Silent(PartitionEstimator):
        def fit(self, prior: EnergyPrior) -> NormalizedPrior:
            found = ScaledPrior(prior, LogZ(0.0))
            found.log_z = None
            return found

    with pytest.raises(UsageError, match="mine gives no log Z to compare with"):
        certify(prior, data, partitions={"mine": Silent()}, **QUICK)
    world, x = dreams()
    with pytest.raises(UsageError, match="normalized and has no log Z; leave mine out"):
        certify_joint(world.joint, x, x, partitions={"mine": Silent()})
