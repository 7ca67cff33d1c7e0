"""What the evidence for a certificate is worth: two sides of log Z, objections to them, and the likely cause."""

import copy
import math
from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor

from unibound.claim import Interval, Side
from unibound.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.evaluation.certify import checks
from unibound.partition import annealing, schedules
from unibound.partition.log_z import LEAST_ESS, PartitionEstimator, Sandwich
from unibound.partition.schedules import Schedule

SURE = math.log(20)
"""Markov's inequality: with 95% probability an unbiased positive estimate is below 20 times its mean."""


@attrs.frozen
class Evidence:
    """One number that bears on the verdict.

    Args:
        name: how it was found.
        value: in nats.
        stderr: standard error, over chains for log Z and over data for likelihoods; None if unknown.
        of: what it is an estimate or a bound of.
        side: where it lies, in expectation, relative to that.
        proof: whether that side is a theorem here; otherwise the number is only a check.
        note: what else there is to say.
    """

    name: str
    value: float
    stderr: float | None
    of: str
    side: Side
    proof: bool
    note: str = ""


def fit_base(prior: EnergyPrior, tau: Tensor, base: str) -> None:
    """Fit the base distribution to tau [N, *Z], or to fair coins."""
    if base not in ("data", "uniform"):
        raise UsageError(f"unknown base {base!r}; there are: data, uniform")
    prior.fit_base(tau if base == "data" else torch.stack([torch.zeros_like(tau[0]), torch.ones_like(tau[0])]))


def schedule_of(temperatures: int | str | Sequence[float], prior: EnergyPrior) -> Schedule:
    """A number of even temperatures, a schedule by name, or temperatures of one's own."""
    if isinstance(temperatures, str) and not temperatures.lstrip("+-").isdigit():
        return schedules.make(temperatures, prior=prior)
    if isinstance(temperatures, int | str):
        return schedules.make("linear", int(temperatures))
    return schedules.of(temperatures)


def objections(prior: EnergyPrior, both: Sandwich, path: Schedule, num_chains: int, base: str) -> tuple[str, ...]:
    """Why log Z is not to be believed, the likely cause last; nothing if it is."""
    found = []
    for name, side in (("forward", both.lower), ("reverse", both.upper)):
        if side.ess is not None and side.num_chains is not None and side.ess < LEAST_ESS * side.num_chains:
            found.append(f"{side.ess:.1f} of {side.num_chains} {name} chains carry its estimate of log Z")
    if both.disagreement is not None:
        found.append(both.disagreement)
    if not found and (trouble := both.trouble):
        found.append(trouble)
    if not found:
        return ()
    return (*found, f"likely cause: {_cause(prior, both, path, num_chains, base)}")


def _cause(prior: EnergyPrior, both: Sandwich, path: Schedule, num_chains: int, base: str) -> str:
    if base == "uniform":
        return "the base distribution: fair coins are too far from the model; use --base data"
    fewer = schedules.coarser(path, 4)
    _, log_w = annealing.forward(prior, num_chains, fewer)
    gain = both.lower.value - annealing.lower_bound(prior, log_w).value
    if gain > 0.5 * both.tolerance:
        return (
            f"too few temperatures: {path.num_temperatures} give a log Z {gain:.2f} nats above that of "
            f"{fewer.num_temperatures}; use more --temperatures, or the schedule piecewise or adaptive"
        )
    return "chains that do not mix: the model has modes that annealing does not join; no more temperatures help"


def log_z_evidence(both: Sandwich) -> tuple[Evidence, ...]:
    """The two sides of log Z, and what each proves."""
    lower, upper = both.estimates
    sure = f"log Z >= {lower.value - SURE:.2f} with 95% confidence, by Markov's inequality"
    note = f"{lower.ess:.0f} of {lower.num_chains} chains carry it; {sure}"
    rows = [Evidence("forward AIS", lower.value, lower.stderr, "log Z", lower.side, not lower.heuristic, note)]
    if upper.heuristic:
        note = "errs high if the Gibbs run behind it reached the model"
    else:
        note = f"from exact draws; log Z <= {upper.value + SURE:.2f} with 95% confidence, by Markov's inequality"
    note = f"{upper.ess:.0f} of {upper.num_chains} chains carry it; {note}"
    rows.append(Evidence("reverse AIS", upper.value, upper.stderr, "log Z", upper.side, not upper.heuristic, note))
    return tuple(rows)


def witnesses(prior: EnergyPrior, partitions: Mapping[str, PartitionEstimator]) -> dict[Evidence, Interval]:
    """What other estimators say of log Z: each side, and the 95% interval around it alone.

    The random numbers that follow are the same as without them.

    Raises:
        UsageError: an estimator that cannot work for this prior, or gives no log Z.
    """
    found = {}
    with torch.random.fork_rng():
        for name, estimator in partitions.items():
            log_z = estimator.fit(copy.deepcopy(prior)).log_z
            if log_z is None:
                raise UsageError(f"{name} gives no log Z to compare with; leave it out of the certificate")
            for one in log_z.estimates:
                note = "" if one.ess is None else f"{one.ess:.0f} of {one.num_chains} chains carry it"
                row = Evidence(f"log Z, {name}", one.value, one.stderr, "log Z", one.side, not one.heuristic, note)
                found[row] = one.interval
    return found


def contradictions(found: Mapping[Evidence, Interval], both: Sandwich) -> tuple[str, ...]:
    """Which witnesses put log Z beyond the interval that forward and reverse annealing give; nothing if none does."""
    low, high = both.interval.low or 0.0, both.interval.high or 0.0
    cause = "likely cause: chains that miss a mode of the model, or an estimator that errs on the other side"
    reasons = []
    for row, own in found.items():
        if row.side in (Side.LOWER, Side.EQUAL) and own.low is not None and own.low > high:
            reasons.append(f"{row.name}, is above {own.low:.2f} with 95% confidence, and annealing below {high:.2f}")
        if row.side in (Side.UPPER, Side.EQUAL) and own.high is not None and own.high < low:
            reasons.append(f"{row.name}, is below {own.high:.2f} with 95% confidence, and annealing above {low:.2f}")
    return (*reasons, cause) if reasons else ()


def assumptions(log_z: Sandwich) -> tuple[str, ...]:
    """What a certified interval takes for granted."""
    if log_z.heuristic:
        return (
            "the lower end of log Z, hence the upper end of the likelihood, rests on a proof; the other ends take it "
            "that the Gibbs run behind the reverse chains reached the model",
        )
    return ("both ends of log Z rest on proofs, their widths on normal theory",)


def csl_note(count: int) -> str:
    """What to say of a conservative sampling-based likelihood of so many data."""
    return f"{count} data, by {checks.CSL_STATES} states of chains; a bound on log p if they have mixed"


def below_base_rate(ll: float, log_base: Tensor | None, tolerance: float) -> str | None:
    """Refuse a model that is worse than independent pixels; None if it is not."""
    if log_base is None or ll >= log_base.mean().item() - tolerance:
        return None
    return (
        "the data are likelier under independent pixels with their own base rates than under the model; likely "
        "cause: transposed pixels, or others than it was trained on"
    )
