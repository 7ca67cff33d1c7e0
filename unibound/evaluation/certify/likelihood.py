"""From a bound that particles give to an interval for a likelihood: what each end rests on, and what opens it."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from unibound.claim import NORMAL_95, Interval, Side
from unibound.evaluation.certify.evidence import Evidence
from unibound.evaluation.certify.prior import Certificate
from unibound.evaluation.conclusion import Evaluation
from unibound.evaluation.reach import Reach
from unibound.partition.log_z import LogZ, Sandwich


def conclude(
    result: Evaluation,
    log_z: LogZ | Sandwich,
    evidence: tuple[Evidence, ...],
    reasons: tuple[str, ...],
    rivals: Mapping[str, Tensor],
    log_base: float | None,
) -> Certificate:
    """An interval for the mean log-likelihood of the data that were evaluated, or a refusal.

    The lower end is a proof as far as log Z is one. The upper end is claimed where what was looked at beyond q's draws
    could have shown otherwise, and no other lower bound lies above it.

    Args:
        result: the K-particle bound, and how far it may lie below log p.
        log_z: what normalized it.
        evidence: rows so far.
        reasons: what the ends of log Z take for granted.
        rivals: other lower bounds of the likelihood, less that of the particles, of some of the data [N'].
        log_base: mean log-likelihood under independent elements; None where that means nothing.
    """
    assert result.bounds is not None
    ll, count, value = -result.nll, len(result.bounds), log_z.middle if isinstance(log_z, Sandwich) else log_z.value
    evidence = (*evidence, *_rows(result, ll, proof=log_z.side is Side.EQUAL))
    known = {"log_z": value, "log_z_interval": log_z.interval, "evidence": evidence}
    if not math.isfinite(ll):
        return Certificate("refused", (f"the bound by particles is {ll} nats: nothing can be said",), **known)
    low, high = log_z.interval.low or 0.0, log_z.interval.high or 0.0
    # Mean relative variance of a bound is about twice what it lacks, which is about what it gained by doubling.
    noise = NORMAL_95 * math.sqrt(2 * max(result.gap or 0.0, 0.0) / count)
    bottom = ll - math.hypot(noise, high - value)
    if result.mass and bottom > 0:
        reason = f"a mean log-likelihood above {bottom:.2f} is impossible for probabilities: log Z is wrong"
        return Certificate("refused", (reason,), **known)
    top, said = _top(result, ll, noise, value - low, rivals)
    return Certificate(
        "certified",
        (*reasons, *said),
        test_ll=ll,
        test_ll_interval=Interval(bottom, top),
        test_ll_stderr=None if math.isnan(result.nll_stderr) else result.nll_stderr,
        warnings=_beside(log_base, ll, top),
        **known,
    )


def _rows(result: Evaluation, ll: float, *, proof: bool) -> tuple[Evidence, ...]:
    """The bound, and others of the same data, as they would be of all of them."""
    gained = "" if result.gap is None else f"; {result.gap:.3f} nats gained by doubling them"
    note = f"{result.num_particles} particles per datum{gained}"
    stderr = None if math.isnan(result.nll_stderr) else result.nll_stderr
    rows = [Evidence("particles", ll, stderr, "log p", Side.LOWER, proof, note)]
    if not isinstance(reach := result.reach, Reach):
        return tuple(rows)
    own, *others = reach.found.items()
    for name, mean in others:
        gain = mean - own[1]
        note = f"{gain:+.3f} nats beside the particles, by {reach.cases[0]} data"
        rows.append(Evidence(name, ll + gain, None, "log p", Side.LOWER, proof, note))
    note = f"what {reach.by} lack of log p, by {reach.cases[1]} data of the model's own"
    rows.append(Evidence("dreams", reach.slack, reach.slack_stderr, "what is lacking", Side.UPPER, False, note))
    return tuple(rows)


def _top(
    result: Evaluation, ll: float, noise: float, blamed: float, rivals: Mapping[str, Tensor]
) -> tuple[float | None, tuple[str, ...]]:
    """The upper end, and what it takes for granted; or None, and why."""
    if result.exact:
        return ll + math.hypot(noise, blamed), ()
    if (reason := result.no_lower_end) is not None:
        return None, (f"no upper end: {reason}",)
    reach = result.reach
    assert isinstance(reach, Reach)
    above = reach.far + math.hypot(noise, reach.noise, blamed)
    for name, gains in rivals.items():
        stderr = gains.std().item() / math.sqrt(len(gains)) if len(gains) > 1 else math.inf
        if (least := gains.mean().item() - NORMAL_95 * stderr) > above:
            return None, (f"no upper end: {name}, which errs low, lies {least:.2f} nats above the bound by particles",)
    top = ll + above
    given = tuple(f"the upper end takes it {one}" for one in reach.given)
    return min(top, 0.0) if result.mass else top, given


def _beside(log_base: float | None, ll: float, top: float | None) -> tuple[str, ...]:
    """How the model does beside independent pixels, where not well: a low likelihood is one nevertheless."""
    if log_base is None or ll >= log_base:
        return ()
    if top is not None and top < log_base:
        return (f"the model is worse than independent pixels ({log_base:.2f}); are these the data it is of?",)
    return (f"the bound lies below independent pixels ({log_base:.2f}); of the model that says nothing",)


def gains(result: Evaluation, values: Tensor, index: Tensor) -> Tensor:
    """By how much other bounds [N'] of the data with these numbers [N'] exceed that of the particles."""
    assert result.bounds is not None
    return values - result.bounds[index.to(torch.long)]
