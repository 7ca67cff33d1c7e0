"""A certificate for a likelihood: an interval with what it rests on, or a refusal with the likely cause."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import attrs
import torch
from torch import Tensor

from unibound import support
from unibound.claim import Interval, Side
from unibound.data.splits import spread
from unibound.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.evaluation.certify import checks
from unibound.evaluation.certify.evidence import (
    Evidence,
    assumptions,
    below_base_rate,
    contradictions,
    csl_note,
    fit_base,
    log_z_evidence,
    objections,
    schedule_of,
    witnesses,
)
from unibound.partition import annealing
from unibound.partition.log_z import TOLERANCE, PartitionEstimator, Sandwich, require_energy_prior
from unibound.prior import Prior

Base = Literal["data", "uniform"]


@attrs.frozen
class Certificate:
    """What may be said of a model's log-likelihood, in nats.

    Args:
        verdict: `certified`, or `refused`; then no likelihood is given.
        reasons: why it was refused, and the likely cause; or what a certified interval takes for granted.
        log_z: estimate of log Z; None where it was not looked at.
        log_z_interval: where it lies.
        test_ll: mean log-likelihood of the test data; None where it was refused.
        test_ll_interval: where it lies; an end that cannot be claimed is None.
        test_ll_stderr: standard error over the data: how far other data like these may lie.
        num_data: test data.
        evidence: the numbers it rests on.
        seconds: what it took.
    """

    verdict: Literal["certified", "refused"]
    reasons: tuple[str, ...]
    log_z: float | None = None
    log_z_interval: Interval | None = None
    test_ll: float | None = None
    test_ll_interval: Interval | None = None
    test_ll_stderr: float | None = None
    num_data: int = 0
    evidence: tuple[Evidence, ...] = ()
    seconds: float = 0.0

    @property
    def log_z_low(self) -> float | None:
        """Lower end of the interval for log Z."""
        return None if self.log_z_interval is None else self.log_z_interval.low

    @property
    def log_z_high(self) -> float | None:
        """Upper end of the interval for log Z."""
        return None if self.log_z_interval is None else self.log_z_interval.high

    @property
    def test_ll_low(self) -> float | None:
        """Lower end of the interval for the likelihood."""
        return None if self.test_ll_interval is None else self.test_ll_interval.low

    @property
    def test_ll_high(self) -> float | None:
        """Upper end of the interval for the likelihood."""
        return None if self.test_ll_interval is None else self.test_ll_interval.high


@torch.no_grad()
def certify(
    prior: Prior,
    data: Tensor,
    *,
    train: Tensor | None = None,
    num_chains: int = 100,
    temperatures: int | str | Sequence[float] = "piecewise",
    base: Base = "data",
    tolerance: float = TOLERANCE,
    num_steps: int = 500,
    raise_cases: int = 100,
    raise_chains: int = 1,
    partitions: Mapping[str, PartitionEstimator] = MappingProxyType({}),
    image: tuple[int, ...] | None = None,
    seed: int = 0,
    on_progress: Callable[[int], object] = lambda done: None,
) -> Certificate:
    """Certify or refuse the log-likelihood of data under an energy prior, such as an RBM.

    Forward annealing errs low on log Z, reverse annealing from draws of the model errs high. Where they agree,
    and neither rests on a few chains, log Z lies between them. The rest are checks: reverse annealing of the
    data themselves (RAISE), a sampling-based likelihood (CSL), the data's own base rates.

    Args:
        prior: the model; not modified.
        data: test data, of what the prior is over [N, *Z], or [N, *X] with as many elements.
        train: data to fit the base distribution to and to begin Gibbs runs at; the test data by default.
        num_chains: chains M in each direction, and of the sampling-based likelihood.
        temperatures: number of even ones, the name of a schedule, or temperatures from 0 to 1.
        base: where annealing begins: at the base rates of the data, or at fair coins.
        tolerance: nats by which the two directions may disagree.
        num_steps: Gibbs steps before the reverse chains, where draws of the model cannot be exact.
        raise_cases: how many data are annealed in reverse.
        raise_chains: chains for each of these.
        partitions: other estimators of log Z, by name; one that contradicts the interval for log Z refuses it.
        image: shape of one image, for the check of its orientation; that of the data by default.
        seed: of every random number; the global generator is left as it was.
        on_progress: called with the number of chain-steps done.
    Raises:
        UsageError: no data or chains, data that do not fit or that the model is not over, weights that are not finite,
            or a partition estimator that gives no log Z here.
    """
    start = time.perf_counter()
    require_sane(tolerance, num_steps, raise_cases, raise_chains)
    prior = copy.deepcopy(require_energy_prior("certify", prior)).eval()
    _require_finite(prior)
    shape = image or checks.image_shape(data)
    test, train = (_fitting(prior, x) for x in (data, data if train is None else train))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        certificate = _certify(
            prior, test, train, shape, num_chains, temperatures, base, tolerance, num_steps, raise_cases,
            raise_chains, partitions, on_progress,
        )  # fmt: skip
    return attrs.evolve(certificate, num_data=len(test), seconds=time.perf_counter() - start)


def _certify(
    prior: EnergyPrior,
    test: Tensor,
    train: Tensor,
    shape: tuple[int, ...],
    num_chains: int,
    temperatures: int | str | Sequence[float],
    base: Base,
    tolerance: float,
    num_steps: int,
    raise_cases: int,
    raise_chains: int,
    partitions: Mapping[str, PartitionEstimator],
    on_progress: Callable[[int], object],
) -> Certificate:
    bits = support.same(prior.support, support.boolean)
    if bits and (misread := checks.misread(prior, test, shape)):
        return Certificate("refused", (f"likely cause: {misread}",))
    fit_base(prior, train, base)
    path = schedule_of(temperatures, prior)
    heard = witnesses(prior, partitions)
    both, end = annealing.sandwich(prior, path, num_chains, num_steps, train, on_progress)
    both = attrs.evolve(both, tolerance=tolerance)
    evidence = (*log_z_evidence(both), *heard)
    if reasons := objections(prior, both, path, num_chains, base) or contradictions(heard, both):
        return refused(reasons, both, evidence)
    log_f = -checks.free_energies(copy.deepcopy(prior).double(), test)  # [N]
    log_p = log_f - both.middle
    ll, stderr = _mean(log_p)
    log_base = checks.log_base_rate(train, test)
    if log_base is not None:
        evidence += (Evidence("base rates", *_mean(log_base), "log p of independent pixels", Side.EQUAL, True),)
    if reason := below_base_rate(ll, log_base, tolerance):
        return refused((reason,), both, evidence)
    if raise_cases > 0:
        cases, log_f_cases = spread(test, raise_cases), spread(log_f, raise_cases)
        raised, raised_stderr = _mean(log_f_cases + annealing.log_p_ann(prior, cases, path, raise_chains))
        there = log_f_cases.mean().item() - both.middle
        note = f"{len(cases)} data, {raise_chains} chains each; forward and reverse AIS give them {there:.2f}"
        evidence += (Evidence("RAISE", raised, raised_stderr, "log p_ann", Side.LOWER, True, note),)
    if (log_csl := checks.conservative(prior, end, spread(test, checks.CSL_CASES))) is not None:
        csl, csl_stderr = _mean(log_csl)
        note = csl_note(len(log_csl))
        evidence += (Evidence("CSL", csl, csl_stderr, "log p of the chain", Side.LOWER, False, note),)
        if (more := csl - spread(log_p, len(log_csl)).mean().item()) > tolerance:
            reason = f"CSL gives {more:.1f} nats more than annealing; likely cause: chains that do not mix"
            return refused((reason,), both, evidence)
    log_z = both.interval
    mean = log_f.mean().item()
    return Certificate(
        "certified",
        assumptions(both),
        log_z=both.middle,
        log_z_interval=log_z,
        test_ll=ll,
        test_ll_interval=Interval(mean - (log_z.high or 0.0), mean - (log_z.low or 0.0)),
        test_ll_stderr=stderr,
        evidence=evidence,
    )


def refused(reasons: tuple[str, ...], both: Sandwich, evidence: tuple[Evidence, ...]) -> Certificate:
    """No likelihood, and what is known of log Z."""
    return Certificate("refused", reasons, both.middle, both.interval, evidence=evidence)


def _mean(values: Tensor) -> tuple[float, float | None]:
    count = len(values)
    return values.mean().item(), values.std().item() / math.sqrt(count) if count > 1 else None


def _fitting(prior: EnergyPrior, x: Tensor) -> Tensor:
    """Data in the shape and type of the prior's latents."""
    size = prior.state_shape.numel()
    if len(x) < 1 or x[0].numel() != size:
        over = support.describe(prior.support)
        raise UsageError(f"the model is over {size} {over}, but the data have shape {list(x.shape)}; give [N, {size}]")
    support.require(prior.support, x, "the model")
    return x.reshape(len(x), *prior.state_shape).to(prior.chains)


def require_sane(tolerance: float, num_steps: int, raise_cases: int, raise_chains: int) -> None:
    """Raise UsageError for numbers no certificate can be made with."""
    if not tolerance > 0:
        raise UsageError(f"tolerance must be above 0, not {tolerance}")
    least = {"num_steps": (num_steps, 0), "raise_cases": (raise_cases, 0), "raise_chains": (raise_chains, 1)}
    for name, (value, at_least) in least.items():
        if value < at_least:
            raise UsageError(f"{name} must be at least {at_least}, not {value}")


def _require_finite(prior: EnergyPrior) -> None:
    bad = [name for name, value in prior.named_parameters() if not value.isfinite().all()]
    if bad:
        raise UsageError(f"{', '.join(bad)} of the model overflowed or are not numbers; there is nothing to certify")
