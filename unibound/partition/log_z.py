"""Partition functions: what is known of log Z, on which side it errs, and when it is not to be believed."""

import math
from abc import ABC, abstractmethod
from typing import Any

import attrs
import torch
from torch import Tensor

from unibound.claim import NORMAL_95, Interval, Side
from unibound.energies.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.prior import Prior
from unibound.record import Record

LEAST_ESS = 0.05
"""Share of the chains that must carry an estimate."""
LEAST_CHAINS = 5.0
"""Effective chains that must carry it, however few there are."""
LEAST_FOR_A_BAR = 2.0
"""Effective chains below which an estimate has no finite error bar: one number does not tell how far it is off."""
HEAVY_TAIL = 0.7
"""Pareto tail index of the weights from which on their mean cannot be trusted (Vehtari et al.)."""
TOLERANCE = 1.0
"""Nats by which forward and reverse annealing may disagree."""
LEAST_GAP, MAX_STDERRS = 0.2, 4.0
"""Within the tolerance they may still contradict each other: by more nats than the one, and more standard errors than
the other."""


@attrs.frozen
class LogZ:
    """One estimate of log Z, in nats.

    Args:
        value: the estimate.
        stderr: its standard error; 0.0 where it is exact, infinite where fewer than two chains carry it.
        side: `equal` if exact; `lower` if E[value] <= log Z, as for AIS, so that likelihoods normalized by it are
            flattered; `upper` for the reverse.
        ess: effective sample size of the weights behind it, out of `num_chains`; None where exact.
        num_chains: number of independent chains; None where exact.
        tail: Pareto tail index of those weights; None where exact, or where there are too few to say.
        heuristic: whether the side holds only as far as chains reached the model, or moved as they should.
    """

    value: float
    stderr: float = 0.0
    side: Side = attrs.field(default=Side.EQUAL, converter=Side)
    ess: float | None = None
    num_chains: int | None = None
    tail: float | None = None
    heuristic: bool = False

    @property
    def estimates(self) -> "tuple[LogZ, ...]":
        """The one-sided estimates behind it: itself."""
        return (self,)

    @property
    def interval(self) -> Interval:
        """A 95% interval by normal theory: 1.96 standard errors to either side, and a little more.

        That is one part in sqrt(ess), since the standard error is an estimate itself. Two things are no noise, and are
        added to the end that they concern. By how much the expectation misses log Z: E[log mean w] is below the log of
        E[mean w] by half the variance, to second order. And what M chains did not meet: a share of up to 3 / M of all
        paths may weigh nothing, so the end that is proved is never closer to the estimate than that. No end is claimed
        where there is no finite standard error.

        Source: Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?" (1983),
        https://doi.org/10.1001/jama.1983.03330370053031
        """
        if not math.isfinite(self.value) or not math.isfinite(self.stderr) or (self.num_chains or math.inf) <= 3:
            return Interval(None, None)
        margin, shift = NORMAL_95 * self.stderr * (1 + (self.ess or math.inf) ** -0.5), self.stderr**2 / 2
        unmet = 0.0 if self.num_chains is None else -math.log1p(-3 / self.num_chains)
        low = max(margin, unmet) if self.side is Side.LOWER else margin + shift * (self.side is Side.UPPER)
        high = max(margin, unmet) if self.side is Side.UPPER else margin + shift * (self.side is Side.LOWER)
        return Interval(self.value - low, self.value + high)

    @property
    def trouble(self) -> str | None:
        """Why the value is not to be believed, in words; None where nothing speaks against it."""
        if not math.isfinite(self.value):
            return f"it is {self.value}"
        if self.ess is None or self.num_chains is None:
            return None
        if not self.ess >= LEAST_ESS * self.num_chains:
            return f"{self.ess:.1f} of {self.num_chains} chains carry it; use more temperatures"
        if not self.ess >= LEAST_CHAINS:
            more = "chains" if self.ess > 0.5 * self.num_chains else "temperatures, or more chains"
            return f"{self.ess:.1f} of {self.num_chains} chains carry it, fewer than {LEAST_CHAINS:g}; use more {more}"
        # Where most chains carry the estimate alike, the shape of their tail moves nothing.
        if self.tail is not None and self.tail > HEAVY_TAIL and self.ess < 0.5 * self.num_chains:
            return (
                f"its weights have Pareto tail index {self.tail:.2f}, above {HEAVY_TAIL}, so a few chains may yet "
                "move it; use more temperatures"
            )
        return None

    @property
    def trustworthy(self) -> bool:
        """False where too few chains carry it (fewer than 5, or than 5% of them), or its weights' tail is too heavy."""
        return self.trouble is None


@attrs.frozen
class Sandwich:
    """log Z from both sides, in nats. Its value is the upper one, by which likelihoods err low.

    Args:
        lower: an estimate that errs low, from chains that rise to the model.
        upper: one that errs high, from chains that fall from it.
        tolerance: nats by which the two may differ.
    """

    lower: LogZ
    upper: LogZ
    tolerance: float = TOLERANCE

    @property
    def value(self) -> float:
        """The upper estimate."""
        return self.upper.value

    @property
    def stderr(self) -> float:
        """Standard error of the upper estimate."""
        return self.upper.stderr

    @property
    def side(self) -> Side:
        """That of the upper estimate."""
        return self.upper.side

    @property
    def ess(self) -> float | None:
        """Effective sample size behind the upper estimate."""
        return self.upper.ess

    @property
    def num_chains(self) -> int | None:
        """Chains behind the upper estimate."""
        return self.upper.num_chains

    @property
    def heuristic(self) -> bool:
        """Whether one of the sides takes it that chains reached the model, or moved as they should."""
        return self.lower.heuristic or self.upper.heuristic

    @property
    def estimates(self) -> tuple[LogZ, ...]:
        """The one-sided estimates behind it: the lower and the upper."""
        return self.lower, self.upper

    @property
    def middle(self) -> float:
        """One value between the two, each weighed by its precision; the more alike, the farther they are apart.

        What lies between them may be the shift of either, of which its standard error knows nothing.
        """
        if not all(math.isfinite(one.stderr) for one in self.estimates):
            return (self.lower.value + self.upper.value) / 2
        a, b = (1 / (max(one.stderr, 1e-6) ** 2 + self.gap**2) for one in self.estimates)
        return (a * self.lower.value + b * self.upper.value) / (a + b)

    @property
    def gap(self) -> float:
        """The upper estimate less the lower."""
        return self.upper.value - self.lower.value

    @property
    def interval(self) -> Interval:
        """From the lower end of the one 95% interval to the upper end of the other, and wide enough for both."""
        one, other = self.lower.interval, self.upper.interval
        low = None if one.low is None else min(one.low, one.low if other.low is None else other.low)
        high = None if other.high is None else max(other.high, other.high if one.high is None else one.high)
        return Interval(low, high)

    @property
    def trouble(self) -> str | None:
        """Why the value is not to be believed, in words; None where nothing speaks against it."""
        if self.upper.trouble is None and self.disagreement is not None:
            return f"{self.disagreement}; use more temperatures, or a prior whose chains mix"
        return self.upper.trouble or self.lower.trouble

    @property
    def disagreement(self) -> str | None:
        """How the two sides contradict each other, in words; None where they do not.

        Each sees by its error bar only what its own chains met. A mode that rising chains miss and falling chains
        begin in shows as a gap of many standard errors, however few nats it is worth.
        """
        low, high = sorted([self.lower.value, self.upper.value])
        apart = f"forward and reverse annealing put log Z at {low:.2f} and {high:.2f}" + (
            ", the wrong way round" if self.gap < 0 else ""
        )
        stderr = math.hypot(self.upper.stderr, self.lower.stderr)
        if not abs(self.gap) <= self.tolerance:
            return f"{apart}: {abs(self.gap):.2f} nats apart, more than {self.tolerance:g}"
        if abs(self.gap) > max(LEAST_GAP, MAX_STDERRS * stderr):
            return f"{apart}: {abs(self.gap) / stderr:.0f} standard errors apart"
        return None

    @property
    def trustworthy(self) -> bool:
        """False where one side is not to be trusted, or the two disagree."""
        return self.trouble is None


class NormalizedPrior(ABC):
    """log p(tau) for a prior whose log Z had to be estimated."""

    log_z: LogZ | Sandwich | None
    side: Side
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

    def __init__(self, prior: Prior, log_z: LogZ | Sandwich) -> None:
        super().__init__(prior)
        self.log_z = log_z
        self.side = -log_z.side
        self._value = log_z.value

    def log_correction(self, tau: Tensor) -> Tensor:
        lead = tau.shape[: tau.dim() - len(self.prior.state_shape)]
        return tau.new_full(lead, -self._value, dtype=torch.float64)


class PartitionEstimator(Record, ABC):
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
