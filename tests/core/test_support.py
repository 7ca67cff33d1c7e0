"""What values are made of: which support holds which, and what is said of a value outside."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Independent, Normal, OneHotCategorical, Poisson

from unibound import UsageError, support
from unibound.distributions import Bits, PointMass
from unibound.support import boolean, integer_interval, levels, nonnegative_integer, one_hot, real, spin, unit_interval

NUMBERS, STEPS = integer_interval(0, 3), support.levels(4)
ALL = [boolean, spin, NUMBERS, STEPS, nonnegative_integer, one_hot, unit_interval, real]
WITHIN = {
    (boolean, NUMBERS),
    (boolean, STEPS),
    (boolean, nonnegative_integer),
    (NUMBERS, nonnegative_integer),
    (unit_interval, real),
}


@pytest.mark.parametrize("inner", ALL)
@pytest.mark.parametrize("outer", ALL)
def test_what_holds_what(inner, outer):
    assert support.same(inner, outer) == (inner is outer)
    assert support.within(inner, outer) == (inner is outer or (inner, outer) in WITHIN)


def test_the_same_whatever_the_object():
    assert support.same(integer_interval(0, 1), boolean)
    assert support.same(integer_interval(0, 3), integer_interval(0, 3))
    assert support.same(support.levels(2), boolean)
    assert not support.same(integer_interval(0, 3), integer_interval(0, 4))
    assert support.same(None, None)
    assert not support.same(None, real)


@pytest.mark.parametrize(
    ("over", "listed", "words", "discrete"),
    [
        (boolean, (0.0, 1.0), "bits", True),
        (spin, (-1.0, 1.0), "spins", True),
        (integer_interval(2, 5), (2.0, 3.0, 4.0, 5.0), "whole numbers from 2 to 5", True),
        (support.levels(3), (0.0, 0.5, 1.0), "3 levels from 0 to 1", True),
        (nonnegative_integer, None, "counts", True),
        (one_hot, None, "categories", True),
        (unit_interval, None, "numbers from 0 to 1", False),
        (real, None, "reals", False),
        (None, None, "whatever q is over", False),
    ],
)
def test_values_and_words(over, listed, words, discrete):
    assert support.values(over) == listed
    assert support.describe(over) == words
    assert support.is_discrete(over) == discrete


@pytest.mark.parametrize(
    ("made", "over"),
    [
        (Bits(torch.zeros(2, 3)), boolean),
        (Independent(Bernoulli(logits=torch.zeros(2, 3)), 1), boolean),
        (Independent(Independent(Normal(torch.zeros(2, 3), 1.0), 1), 1), real),
        (Independent(Poisson(torch.ones(3)), 1), nonnegative_integer),
        (Categorical(logits=torch.zeros(4)), NUMBERS),
        (OneHotCategorical(logits=torch.zeros(4)), one_hot),
        (PointMass(torch.zeros(3)), None),
        (PointMass(torch.zeros(3), support=spin), spin),
    ],
)
def test_what_a_distribution_is_over(made, over):
    assert support.same(support.of(made), over)


@pytest.mark.parametrize(
    ("over", "x", "words"),
    [
        (boolean, [0.0, 0.25], "lena is over bits, but the data hold 0.25; binarize them"),
        (boolean, [1.0, -1.0], "lena is over bits, but the data hold -1; they are spins: map them"),
        (boolean, [1.0, 3.0], "the data hold 3; choose a likelihood"),
        (spin, [0.0, 1.0], "lena is over spins, but the data hold 0; choose"),
        (
            levels(4),
            [1.0, 3.0, 4.0, 0.0],
            "over 4 levels from 0 to 1, but the data hold 4; whole numbers are",
        ),
        (levels(4), [1.0, 3.0, -1.0], "the data hold -1; whole numbers are levels from 0 to 3: mend what lies beyond"),
        (levels(4), [0.0, 0.5], "over 4 levels from 0 to 1, but the data hold 0.5; choose a likelihood"),
        (real, [0.0, math.nan], "lena is over reals, but the data hold NaN; replace or drop"),
        (boolean, [0.0, math.inf], "the data hold inf; replace or drop"),
        (nonnegative_integer, [0.5], "lena is over counts, but the data hold 0.5"),
        (one_hot, [1.0, 1.0], "lena is over categories, but the data hold a row that is none"),
    ],
)
def test_a_value_outside_is_refused_in_one_line(over, x, words):
    with pytest.raises(UsageError) as caught:
        support.require(over, torch.tensor([x]), "lena")
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_value_inside_is_not():
    for over, x in [(boolean, [0.0, 1.0]), (spin, [-1.0, 1.0]), (real, [-3.5, 2.0]), (None, [math.nan])]:
        support.require(over, torch.tensor([x]), "lena")


def test_parts_over_different_values_are_refused():
    with pytest.raises(UsageError, match="q is over reals, but p over bits; change one"):
        support.require_within(real, "q", boolean, "p", "change one")
    support.require_within(boolean, "q", NUMBERS, "p", "change one")
    support.require_within(None, "q", boolean, "p", "change one")
    support.require_within(real, "q", None, "p", "change one")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_levels_are_steps_whatever_they_were_rounded_to(dtype):
    steps = torch.arange(256).float() / 255
    assert support.levels(256).check(steps.to(dtype)).all()
    assert not support.levels(256).check(steps[1:-1].to(dtype) + 1e-4).any()
    assert support.levels(256).check(torch.tensor([-1 / 255, 256 / 255], dtype=dtype)).sum() == 0
