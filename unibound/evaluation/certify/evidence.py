"""What the evidence for a certificate is worth: numbers with the side they err on, objections, what is assumed."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence

import attrs
import torch
from torch import Tensor

from unibound.claim import Interval, Side
from unibound.data.splits import spread
from unibound.energies.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.evaluation.certify import checks
from unibound.evaluation.certify.bases import Look, Plan, look
from unibound.partition import annealing, schedules
from unibound.partition.log_z import LEAST_CHAINS, LogZ, PartitionEstimator, Sandwich

SURE = math.log(20)
"""Markov's inequality: with 95% probability an unbiased positive estimate is below 20 times its mean."""
APART = 5.0
"""Standard errors by which two runs of chains must differ to be said not to mix."""


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


@attrs.frozen(eq=False)
class LogZFound:
    """What a certificate may say of log Z.

    Args:
        look: what was seen.
        evidence: in rows.
        reasons: why it is refused; empty if it is not.
        warnings: what is worth knowing though it refutes nothing.
    """

    look: Look
    evidence: tuple[Evidence, ...]
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def both(self) -> Sandwich:
        """log Z from both sides."""
        return self.look.both


def certify_log_z(
    prior: EnergyPrior,
    tau: Tensor,
    plan: Plan,
    partitions: Mapping[str, PartitionEstimator],
    on_progress: Callable[[int], object] = lambda done: None,
    met: Sequence[Tensor] = (),
) -> LogZFound:
    """log Z from both sides and several bases, and all that speaks against it: the one door for every prior.

    Args:
        prior: what is annealed; its base distribution ends up fitted to what proves most.
        tau: data, or their codes [N, *Z].
        plan: how.
        partitions: other estimators of log Z, by name.
        on_progress: called with the number of chain-steps done in each block.
        met: more states whose mass log Z cannot be below [N', *Z].
    """
    prior.fit_base(tau)
    heard = witnesses(prior, partitions)
    found = look(prior, tau, plan, on_progress)
    ends = [view.end for view in found.views]
    mass = checks.log_mass_met(prior, spread(tau, checks.MET), found.draws, *ends, *met)
    reasons = objections(prior, found, mass) or contradictions(heard, found.both)
    return LogZFound(found, (*log_z_evidence(found, mass), *heard), reasons, warnings(found))


def log_z_evidence(found: Look, met: float | None) -> tuple[Evidence, ...]:
    """What every run of chains says of log Z, and what each proves; `met` is what `checks.log_mass_met` says."""
    rows = []
    for view in found.views:
        sure = f"log Z >= {view.lower.value - SURE:.2f} with 95% confidence, by Markov's inequality"
        first = view is found.best
        rows.append(_row("forward AIS" if first else f"forward AIS, {view.base}", view.lower, sure, view.base))
    upper = found.upper
    note = f"from exact draws; log Z <= {upper.value + SURE:.2f} with 95% confidence, by Markov's inequality"
    if upper.heuristic:
        note = "errs high if the annealed chains it begins at, all bases together, reached the model"
    if found.draws_ess is not None:
        note = f"begun at draws that {found.draws_ess:.0f} forward chains carry; {note}"
    rows.append(_row("reverse AIS", upper, note, found.best.base))
    if found.from_data is not None:
        row = _row("reverse AIS, data", found.from_data, "begun at the data; errs high if they are everywhere", "")
        # What a lower end has refuted errs on no side.
        rows.append(attrs.evolve(row, side=Side.NONE, note=f"{row.note}: they are not") if _stays(found) else row)
    if met is not None:
        rows.append(Evidence("states met", met, None, "log Z", Side.LOWER, True, "the sum over distinct states seen"))
    return tuple(rows)


def _row(name: str, one: LogZ, note: str, base: str) -> Evidence:
    stderr = one.stderr if math.isfinite(one.stderr) else None
    where = f"base {base}; " if base else ""
    note = f"{where}{one.ess:.0f} of {one.num_chains} chains carry it; {note}"
    return Evidence(name, one.value, stderr, "log Z", one.side, not one.heuristic, note)


def objections(prior: EnergyPrior, found: Look, met: float | None) -> tuple[str, ...]:
    """Why log Z is not to be believed, with a cause where one that was tried explains it; nothing if it is."""
    both, reasons = found.both, []
    for name, side in (("forward", both.lower), ("reverse", both.upper)):
        if (trouble := side.trouble) is not None:
            reasons.append(f"log Z by {name} annealing: {trouble}")
    if found.draws_ess is not None and not found.draws_ess >= LEAST_CHAINS:
        reasons.append(f"{found.draws_ess:.1f} forward chains carry all draws that reverse chains begin at")
    if both.disagreement is not None:
        reasons.append(both.disagreement)
    low, high = both.interval.low, both.interval.high
    if low is not None and high is not None and high - low > both.tolerance and not reasons:
        reasons.append(
            f"log Z lies between {low:.2f} and {high:.2f}, which leaves {high - low:.2f} nats open, more than "
            f"{both.tolerance:g}; use more --num-chains, or a larger --tolerance"
        )
    if high is not None:
        reasons += _refuted(found, met, high)
    if found.from_data is not None:
        beyond = Sandwich(both.lower, found.from_data, both.tolerance)
        if beyond.gap > 0 and beyond.disagreement is not None:
            reasons.append(f"where chains begin at the data, {beyond.disagreement}: annealing does not come there")
    if reasons and (cause := _cause(prior, found)):
        reasons.append(f"likely cause: {cause}")
    return tuple(reasons)


def _refuted(found: Look, met: float | None, high: float) -> list[str]:
    """Which proved lower ends lie above what reverse annealing leaves."""
    lows = {f"forward annealing from base {view.base}": view.lower.interval.low for view in found.views[1:]}
    if met is not None:
        lows["the states that were met, summed,"] = met
    return [
        f"{name} put log Z above {low:.2f}, and reverse annealing below {high:.2f}: it did not begin at the model"
        for name, low in lows.items()
        if low is not None and low > high
    ]


def _stays(found: Look) -> bool:
    """Whether chains that begin at the data are proved to stay in a part of the model."""
    high = None if found.from_data is None else found.from_data.interval.high
    lows = [view.lower.interval.low for view in found.views]
    return high is not None and any(low is not None and low > high for low in lows)


def warnings(found: Look) -> tuple[str, ...]:
    """What is worth knowing though it refutes nothing."""
    if not _stays(found):
        return ()
    return (
        "Gibbs chains that begin at the data stay in a part of the model: it has phases that are not like the data; "
        "log Z is of all that annealing from several bases found",
    )


def _cause(prior: EnergyPrior, found: Look) -> str | None:
    """A cause that was tried and found: too few temperatures, or chains that remember where they began."""
    best, plan = found.best, found.plan
    fewer = schedules.coarser(best.path, 4)
    _, log_w = annealing.forward(prior, plan.few, fewer)
    gain = best.lower.value - annealing.lower_bound(prior, log_w).value
    if gain > 0.5 * plan.tolerance:
        return (
            f"too few temperatures: {best.path.num_temperatures} give a log Z {gain:.2f} nats above that of "
            f"{fewer.num_temperatures}; use more --temperatures, or the schedule piecewise or adaptive"
        )
    ends = [checks.free_energies(prior, states) for states in (found.draws, best.end)]
    begun = [annealing.begun_at(prior, view.fitted, plan.few, plan.num_steps) for view in found.views]
    ends += [checks.free_energies(prior, states) for states in begun]
    means = torch.stack([each.mean() for each in ends])
    widths = torch.stack([each.var() / len(each) for each in ends])
    apart = (means.unsqueeze(1) - means).abs() / (widths.unsqueeze(1) + widths).sqrt().clamp_min(1e-9)
    if apart.nan_to_num(0.0).max() > APART:
        spread = (means.max() - means.min()).item()
        return (
            f"chains that do not mix: after {plan.num_steps} steps those that began at different places differ by "
            f"{spread:.1f} nats in mean free energy; more temperatures may not help"
        )
    return None


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
                stderr = one.stderr if math.isfinite(one.stderr) else None
                row = Evidence(f"log Z, {name}", one.value, stderr, "log Z", one.side, not one.heuristic, note)
                found[row] = one.interval
    return found


def contradictions(found: Mapping[Evidence, Interval], both: Sandwich) -> tuple[str, ...]:
    """Which witnesses put log Z beyond the interval that forward and reverse annealing give; nothing if none does."""
    low, high = both.interval.low, both.interval.high
    reasons = []
    for row, own in found.items():
        if row.side in (Side.LOWER, Side.EQUAL) and own.low is not None and high is not None and own.low > high:
            reasons.append(f"{row.name}, is above {own.low:.2f} with 95% confidence, and annealing below {high:.2f}")
        if row.side in (Side.UPPER, Side.EQUAL) and own.high is not None and low is not None and own.high < low:
            reasons.append(f"{row.name}, is below {own.high:.2f} with 95% confidence, and annealing above {low:.2f}")
    return (*reasons, "either chains miss a mode of the model, or one estimator is not what it says") if reasons else ()


def assumptions(log_z: Sandwich) -> tuple[str, ...]:
    """What a certified interval takes for granted."""
    if log_z.lower.heuristic:
        return ("both ends of log Z take it that the transition leaves the model as it is; it does so only nearly",)
    if log_z.heuristic:
        return (
            "the lower end of log Z, hence the upper end of the likelihood, rests on a proof; the other ends take it "
            "that the annealed chains of all bases, by their weights, reached every mode of the model; how wide they "
            "are, on both sides, rests on normal theory",
        )
    return ("both ends of log Z rest on proofs, their widths on normal theory",)


def csl_note(count: int) -> str:
    """What to say of a conservative sampling-based likelihood of so many data."""
    return f"{count} data, by {checks.CSL_STATES} states of chains; a bound on log p if they have mixed"


def below_base_rate(ll: float, log_base: Tensor | None, tolerance: float) -> str | None:
    """Say so of data that are likelier under independent pixels than under the model; None if they are not."""
    if log_base is None or ll >= log_base.mean().item() - tolerance:
        return None
    return (
        f"independent pixels with base rates give {log_base.mean().item():.2f} nats, more than the model: it is a weak "
        "one, or the data are not like those it was trained on"
    )
