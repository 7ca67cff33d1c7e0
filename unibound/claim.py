"""What is claimed of a number: the side it errs on, and how far it may be off."""

from enum import StrEnum

import attrs

NORMAL_95 = 1.959964


class Side(StrEnum):
    """Where the expected value of a number lies relative to what it is a number for."""

    EQUAL = "equal"
    """It is exact."""
    LOWER = "lower"
    """At or below it."""
    UPPER = "upper"
    """At or above it."""
    NONE = "none"
    """Nothing is claimed."""

    @classmethod
    def _missing_(cls, value: object) -> "Side | None":
        # Version 0.1 called the sides of an estimate stochastic_lower and stochastic_upper.
        return {f"stochastic_{side}": side for side in cls}.get(str(value))

    def __neg__(self) -> "Side":
        """The side of -x, where this is that of x."""
        return {Side.LOWER: Side.UPPER, Side.UPPER: Side.LOWER}.get(self, self)

    @property
    def errs(self) -> str:
        """The side, in words."""
        return {"equal": "exact", "lower": "errs low", "upper": "errs high", "none": "side unknown"}[self]


@attrs.frozen
class Interval:
    """Where a number lies with 95% confidence.

    Args:
        low: lower end; None where it is not claimed.
        high: upper end; None where it is not claimed.
        given: what the ends take for granted, each to be read after "given".
    """

    low: float | None
    high: float | None
    given: tuple[str, ...] = ()

    def __neg__(self) -> "Interval":
        """The interval of -x, where this is that of x."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return Interval(low, high, self.given)

    def __contains__(self, value: float) -> bool:
        return (self.low is None or self.low <= value) and (self.high is None or value <= self.high)

    @property
    def two_sided(self) -> bool:
        """Whether both ends are claimed."""
        return self.low is not None and self.high is not None

    @property
    def proviso(self) -> str:
        """What is taken for granted, as the end of a sentence."""
        if len(self.given) > 2:
            return f", given {', '.join(self.given[:-1])}, and {self.given[-1]}"
        return f", given {' and '.join(self.given)}" if self.given else ""
