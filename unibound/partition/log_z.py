"""Partition functions: what is known of log Z, on which side it errs, and when it is not to be believed."""

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from unibound.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.prior import Prior

StochasticSide = Literal["equal", "stochastic_lower", "stochastic_upper"]
OPPOSITE: dict[StochasticSide, StochasticSide] = {
    "equal": "equal",
    "stochastic_lower": "stochastic_upper",
    "stochastic_upper": "stochastic_lower",
}

NORMAL_95 = 1.959964
LEAST_ESS = 0.05
"""Share of the chains that must carry an estimate."""
HEAVY_TAIL = 0.7
"""Pareto tail index of the weights from which on their mean cannot be trusted (Vehtari et al.)."""
TOLERANCE = 1.0
"""Nats by which forward and reverse annealing may disagree."""
LEAST_GAP, MAX_STDERRS = 0.2, 4.0
"""Within the tolerance they may still contradict each other: by more nats than the one, and more standard errors than
the other."""


def _log_z_or_none(value: Any) -> "LogZ | None":
    return LogZ(**value) if isinstance(value, dict) else value


@attrs.frozen
class LogZ:
    """A value for log Z, in nats.

    Args:
        value: the estimate.
        stderr: its standard error; 0.0 where it is exact.
        side: `equal` if exact; `stochastic_lower` if E[value] <= log Z, as for AIS, so that likelihoods
            normalized by it are flattered; `stochastic_upper` for the reverse.
        ess: effective sample size of the weights behind it, out of `num_chains`; None where exact.
        num_chains: number of independent chains; None where exact.
        tail: Pareto tail index of those weights; None where exact, or where there are too few to say.
        heuristic: whether the side holds only as far as a long Gibbs run reached the model.
        opposite: an estimate that errs on the other side, where there is one.
        tolerance: nats by which the two may disagree.
    """

    value: float
    stderr: float = 0.0
    side: StochasticSide = "equal"
    ess: float | None = None
    num_chains: int | None = None
    tail: float | None = None
    heuristic: bool = False
    opposite: "LogZ | None" = attrs.field(default=None, converter=_log_z_or_none)
    tolerance: float = TOLERANCE

    @property
    def gap(self) -> float | None:
        """The upper estimate less the lower, in nats; None where there is one side only."""
        if self.opposite is None:
            return None
        return (self.value - self.opposite.value) * (1 if self.side == "stochastic_upper" else -1)

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of a 95% interval by normal theory, around one side alone or from the lower to the upper.

        Each reaches 1.96 standard errors beyond its estimate, and one part in sqrt(ess) more, since the standard
        error is an estimate itself.
        """
        sides = [self] if self.opposite is None else [self, self.opposite]
        margins = [NORMAL_95 * side.stderr * (1 + (side.ess or math.inf) ** -0.5) for side in sides]
        low = min(side.value - margin for side, margin in zip(sides, margins, strict=True))
        high = max(side.value + margin for side, margin in zip(sides, margins, strict=True))
        return low, high

    @property
    def trouble(self) -> str | None:
        """Why the value is not to be believed, in words; None where nothing speaks against it."""
        if self.ess is not None and self.num_chains is not None and not self.ess >= LEAST_ESS * self.num_chains:
            return f"{self.ess:.1f} of {self.num_chains} chains carry it; use more temperatures"
        if self.tail is not None and self.tail > HEAVY_TAIL and self._uneven:
            return (
                f"its weights have Pareto tail index {self.tail:.2f}, above {HEAVY_TAIL}, so a few chains may yet "
                "move it; use more temperatures"
            )
        if self.disagreement is not None:
            return f"{self.disagreement}; use more temperatures, or a prior whose chains mix"
        return self.opposite.trouble if self.opposite is not None else None

    @property
    def disagreement(self) -> str | None:
        """How forward and reverse annealing contradict each other, in words; None where they do not.

        Each sees by its error bar only what its own chains met. A mode that forward chains miss and reverse chains
        begin in shows as a gap of many standard errors, however few nats it is worth.
        """
        if self.opposite is None or self.gap is None:
            return None
        ends = sorted([self.value, self.opposite.value])
        apart = f"forward and reverse annealing put log Z at {ends[0]:.2f} and {ends[1]:.2f}" + (
            ", the wrong way round" if self.gap < 0 else ""
        )
        stderr = math.hypot(self.stderr, self.opposite.stderr)
        if not abs(self.gap) <= self.tolerance:
            return f"{apart}: {abs(self.gap):.2f} nats apart, more than {self.tolerance:g}"
        if abs(self.gap) > max(LEAST_GAP, MAX_STDERRS * stderr):
            return f"{apart}: {abs(self.gap) / stderr:.0f} standard errors apart"
        return None

    @property
    def _uneven(self) -> bool:
        # Where most chains carry the estimate alike, the shape of their tail moves nothing.
        return self.ess is not None and self.num_chains is not None and self.ess < 0.5 * self.num_chains

    @property
    def trustworthy(self) -> bool:
        """False where the weights collapsed (fewer than 5% of the chains carry them) or two sides disagree."""
        return self.trouble is None


class NormalizedPrior(ABC):
    """log p(tau) for a prior whose log Z had to be estimated."""

    log_z: LogZ | None
    side: StochasticSide
    """Where the expected `log_prob` lies relative to `of`; for one number for log Z, the opposite of its side."""
    of: str
    """What exactly `log_prob` is, or bounds: `log p`, `log p_ann`."""
    num_draws: int | None = None
    """None if `log_correction` is cheap for every particle. Otherwise it costs chains, and an evaluation asks
    for it only at this many particles per datum, drawn in proportion to their weights."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    @abstractmethod
    def log_correction(self, tau: Tensor) -> Tensor:
        """What to add to log p*(tau) to normalize it: [..., *Z] to [...] nats, float64."""

    def log_prob(self, tau: Tensor) -> Tensor:
        """Normalized log-density: [..., *Z] to [...] nats, float64."""
        return self.prior.log_prob(tau).double() + self.log_correction(tau)


class ScaledPrior(NormalizedPrior):
    """p*(tau) / Z with one number for log Z, as enumeration and AIS give it."""

    of = "log p"

    def __init__(self, prior: Prior, log_z: LogZ) -> None:
        super().__init__(prior)
        self.log_z = log_z
        self.side = OPPOSITE[log_z.side]
        self._value = log_z.value

    def log_correction(self, tau: Tensor) -> Tensor:
        lead = tau.shape[: tau.dim() - len(self.prior.event_shape)]
        return tau.new_full(lead, -self._value, dtype=torch.float64)


class PartitionEstimator(ABC):
    """A stateless record of settings that normalizes a prior. Final subclasses are `attrs.frozen`."""

    @abstractmethod
    def fit(self, prior: EnergyPrior) -> NormalizedPrior:
        """Estimate what normalizes the prior; the prior's base distribution has been fitted already."""

    def check(self, prior: EnergyPrior) -> None:
        """Raise UsageError if it cannot work for this prior, which is asked before training; by default it can."""
        del prior


def require_energy_prior(name: str, prior: Prior) -> EnergyPrior:
    """Return the prior if it has an energy; UsageError otherwise, naming the partition estimator."""
    if not isinstance(prior, EnergyPrior):
        raise UsageError(
            f"{name} estimates the log Z of an EnergyPrior, but {type(prior).__name__} has none; leave it out"
        )
    return prior


def at_least(least: int) -> Any:
    """An attrs validator: the field is a whole number no smaller than this, or None where that is its default."""

    def validate(instance: Any, attribute: Any, value: Any) -> None:
        if value is None and attribute.default is None:
            return
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            name = type(instance).__name__.lower()
            raise UsageError(f"{name}: {attribute.name} must be a whole number, at least {least}, not {value!r}")

    return validate
