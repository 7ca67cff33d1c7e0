"""What a law is, and what is said of who sat it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

TOLERANCE = 1e-9
FALSE_ALARM = 4.75  # standard deviations: about one false alarm in a million


class LawBroken(Exception):
    """A law does not hold; the message gives the numbers and what is likely wrong."""


@attrs.frozen
class Verdict:
    """What came of one law.

    Args:
        law: name of the law.
        held: whether it held, or does not apply.
        detail: the numbers, and where it did not hold what is likely wrong.
    """

    law: str
    held: bool
    detail: str


@attrs.frozen(eq=False)
class Law:
    """A named statement and a function that checks it.

    The function is handed what the plugin's kind prepares once per exam. It returns the numbers in words,
    or raises `LawBroken`.
    """

    name: str
    statement: str
    function: Callable[[Any], str]

    @classmethod
    def of(cls, function: Callable[[Any], str]) -> "Law":
        """The law that a function states in the first line of its docstring."""
        return cls(function.__name__, (function.__doc__ or "").partition("\n")[0], function)

    def judge(self, prepare: Callable[[], Any]) -> Verdict:
        """Sit the law under a fixed seed; an exception breaks it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                return Verdict(self.name, True, self.function(prepare()))
            except LawBroken as broken:
                return Verdict(self.name, False, str(broken))
            except Exception as error:
                return Verdict(self.name, False, f"raised {type(error).__name__}: {error}")


def demand(condition: bool, message: str) -> None:
    """Raise LawBroken with a message unless the condition holds."""
    if not condition:
        raise LawBroken(message)


def gap(got: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the expected where that is above one; infinite where not finite."""
    difference = ((got - expected).abs() / expected.abs().clamp(min=1)).max().item() if got.numel() else 0.0
    return difference if math.isfinite(difference) else math.inf


def chi_square(index: Tensor, probability: Tensor) -> tuple[float, float]:
    """How badly draws [N], numbers of states, fit probabilities [S]: the statistic and its limit.

    States expected fewer than ten times are counted as one. The limit is exceeded once in a million times
    by chance (Wilson and Hilferty, "The distribution of chi-square", 1931).
    """
    expected = len(index) * probability
    counts = torch.bincount(index, minlength=len(probability)).double()
    rare = expected < 10
    expected = torch.cat([expected[~rare], expected[rare].sum(0, keepdim=True)])
    counts = torch.cat([counts[~rare], counts[rare].sum(0, keepdim=True)])
    kept = expected > 0
    if counts[~kept].any():
        return math.inf, 0.0
    statistic = ((counts - expected)[kept].square() / expected[kept]).sum().item()
    freedom = max(int(kept.sum()) - 1, 1)
    spread = 2 / (9 * freedom)
    return statistic, freedom * (1 - spread + FALSE_ALARM * math.sqrt(spread)) ** 3


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of independent values [N] and its standard error."""
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


def in_words(numbers: Mapping[str, float]) -> str:
    """Name each number."""
    return ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())
