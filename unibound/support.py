"""What values are made of: bits, spins, categories, counts, levels, reals. Asked before anything is computed.

The vocabulary is that of `torch.distributions.constraints`, and two words more: `spin`, and `levels(n)`. A support here
is that of a single element of an event, whatever the event's shape; `one_hot` alone is one of the last dimension.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.constraints import (
    Constraint,
    boolean,
    integer_interval,
    nonnegative_integer,
    one_hot,
    real,
    unit_interval,
)

from unibound.errors import UsageError

__all__ = [
    "Constraint",
    "boolean",
    "describe",
    "integer_interval",
    "is_discrete",
    "levels",
    "nonnegative_integer",
    "of",
    "one_hot",
    "partly",
    "real",
    "require",
    "require_within",
    "same",
    "spin",
    "unit_interval",
    "values",
    "whole",
    "within",
]


class _Spin(Constraint):
    """-1 and 1."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        return value.abs() == 1


spin = _Spin()


class levels(Constraint):
    """Masses on n even steps from 0 to 1: 0, 1 / (n - 1), ..., 1, as networks and pictures like grey levels.

    `integer_interval(0, n - 1)` holds the same levels as whole numbers.
    """

    is_discrete = True

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        steps = value.double() * (self.count - 1)
        near = (steps - steps.round()).abs() <= self.count * torch.finfo(torch.float32).eps
        return near & (value >= 0) & (value <= 1)


class partly(Constraint):
    """Values of another support, some of them missing, which NaN stands for."""

    def __init__(self, base: Constraint) -> None:
        self.base, self.is_discrete = base, bool(base.is_discrete)
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return value.isnan() | self.base.check(value)


def whole(support: Constraint | None) -> Constraint | None:
    """The same support without missing values."""
    return support.base if isinstance(support, partly) else support


def of(distribution: Distribution) -> Constraint | None:
    """The support of one element of a distribution's events; None where it does not say."""
    try:
        found: Any = distribution.support
    except (NotImplementedError, AttributeError):
        return None
    while isinstance(found, type(constraints.real_vector)):  # torch wraps the support of an element by its dimensions
        found = found.base_constraint
    return found if isinstance(found, Constraint) and not isinstance(found, type(constraints.dependent)) else None


def values(support: Constraint | None) -> tuple[float, ...] | None:
    """Every value an element can have, where these can be listed; None elsewhere."""
    if isinstance(support, type(boolean)):
        return (0.0, 1.0)
    if isinstance(support, _Spin):
        return (-1.0, 1.0)
    if isinstance(support, levels):
        return tuple(step / (support.count - 1) for step in range(support.count))
    if isinstance(support, type(integer_interval(0, 1))):
        low, high = _ends(support)
        return tuple(float(value) for value in range(int(low), int(high) + 1))
    return None


def places(x: Tensor, listed: Sequence[float]) -> Tensor:
    """Which of some values, listed in order, each element is: the nearest, since a GPU divides inexactly."""
    order = torch.tensor(listed, dtype=torch.float64, device=x.device)
    return torch.bucketize(x.double().contiguous(), (order[1:] + order[:-1]) / 2)


def is_discrete(support: Constraint | None) -> bool:
    """Whether a log-probability over it is that of a mass, and so never above zero."""
    return support is not None and bool(support.is_discrete)


def same(one: Constraint | None, other: Constraint | None) -> bool:
    """Whether two supports hold the same values."""
    if isinstance(one, partly) and isinstance(other, partly):
        return same(one.base, other.base)
    listed, others = values(one), values(other)
    if listed is not None or others is not None:
        return listed == others
    if one is None or other is None:
        return one is other
    return type(one) is type(other) and vars(one) == vars(other)


def within(inner: Constraint, outer: Constraint) -> bool:
    """Whether every value of one support is one of another, and both are masses or both densities."""
    if same(inner, outer):
        return True
    if isinstance(outer, partly):
        return within(inner.base if isinstance(inner, partly) else inner, outer.base)
    if isinstance(inner, partly):
        return False
    if is_discrete(inner) != is_discrete(outer):
        return False
    listed, others = values(inner), values(outer)
    if listed is None:
        return same(outer, real) and not is_discrete(inner)
    if others is not None:
        return set(listed) <= set(others)
    return same(outer, nonnegative_integer) and all(value >= 0 and value.is_integer() for value in listed)


def describe(support: Constraint | None) -> str:
    """A support in words."""
    names = (
        (boolean, "bits"),
        (spin, "spins"),
        (real, "reals"),
        (nonnegative_integer, "counts"),
        (one_hot, "categories"),
    )
    if (name := next((name for known, name in names if same(known, support)), None)) is not None:
        return name
    if isinstance(support, partly):
        return f"{describe(support.base)}, some of them missing"
    if isinstance(support, levels):
        return f"{support.count} levels from 0 to 1"
    if (listed := values(support)) is not None:
        return f"whole numbers from {listed[0]:g} to {listed[-1]:g}"
    if isinstance(support, type(unit_interval)):
        low, high = _ends(support)
        return f"numbers from {low:g} to {high:g}"
    return "whatever q is over" if support is None else str(support)


def require(support: Constraint | None, x: Tensor, who: str) -> None:
    """Raise UsageError, naming who needs them, unless every value of x [..., *X] lies in a support.

    Values on another device than the CPU are not looked at, since that would wait for it: where they come from, the
    trainer and evaluation look at them once.
    """
    if support is None or x.device.type != "cpu" or torch.compiler.is_compiling():
        return
    inside = support.check(x)
    if not inside.all():
        hold = f"the data hold {_stranger(x, inside)}"
        raise UsageError(f"{who} is over {describe(support)}, but {hold}; {_cure(support, x)}")


def require_within(inner: Constraint | None, who: str, outer: Constraint | None, whom: str, cure: str) -> None:
    """Raise UsageError unless one part is over values of another; a part that cannot tell agrees with any."""
    if inner is not None and outer is not None and not within(inner, outer):
        raise UsageError(f"{who} is over {describe(inner)}, but {whom} over {describe(outer)}; {cure}")


def _ends(support: Any) -> tuple[float, float]:
    return support.lower_bound, support.upper_bound


def _stranger(x: Tensor, inside: Tensor) -> str:
    if inside.dim() < x.dim():  # a constraint of whole rows
        return "a row that is none"
    outside = x[~inside]
    value = (outside.min() if outside.min() < 0 else outside.max()).item()  # which is the farthest off
    if value != value:
        return "NaN"
    # As few digits as show it: 0.9996 must not read as 1.
    shown = (f"{value:.{digits}g}" for digits in (3, 6, 9, 17))
    return next(text for text in shown if "." in text or float(text) == value)


def _cure(support: Constraint, x: Tensor) -> str:
    """What to do about it, as far as the values themselves say what they are."""
    if not x.isfinite().all():
        return "replace or drop what is not finite"
    if same(support, boolean) and torch.equal(x.abs(), torch.ones_like(x)):
        return "they are spins: map them by (x + 1) / 2, and with them all weights that were trained on spins"
    if same(support, boolean) and x.min() >= 0 and x.max() <= 1:
        return "binarize them, or choose a likelihood of such values"
    if isinstance(support, levels) and torch.equal(x, x.round()) and x.abs().max() > 1:
        return f"whole numbers are levels from 0 to {support.count - 1}: mend what lies beyond"
    return "choose a likelihood, or a prior, of such values"
