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
    pooled,
    schedule_of,
    witnesses,
)
from unibound.partition import annealing
from unibound.partition.log_z import TOLERANCE, LogZ, PartitionEstimator, require_energy_prior
from unibound.prior import Prior

Base = Literal["data", "uniform"]


@attrs.frozen
class Certificate:
    """What may be said of a model's log-likelihood, in nats.

    Args:
        verdict: `certified`, or `refused`; then no likelihood is given.
        reasons: why it was refused, and the likely cause; or what a certified interval takes for granted.
        log_z: estimate of log Z, and the ends of its 95% interval; None where it was not looked at.
        test_ll: mean log-likelihood of the test data, and the ends of the 95% interval for it; an end that
            cannot be claimed is None.
        test_ll_stderr: standard error over the data: how far other data like these may lie.
        num_data: test data.
        evidence: the numbers it rests on.
        seconds: what it took.
    """

    verdict: Literal["certified", "refused"]
    reasons: tuple[str, ...]
    log_z: float | None = None
    log_z_low: float | None = None
    log_z_high: float | None = None
    test_ll: float | None = None
    test_ll_low: float | None = None
    test_ll_high: float | None = None
    test_ll_stderr: float | None = None
    num_data: int = 0
    evidence: tuple[Evidence, ...] = ()
    seconds: float = 0.0


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
        data: test data, bits [N, *Z], or [N, *X] with as many elements.
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
        UsageError: no data or chains, data that are no bits or do not fit, weights that are not finite, or a partition
            estimator that gives no log Z here.
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
    if misread := checks.misread(prior, test, shape):
        return Certificate("refused", (f"likely cause: {misread}",))
    fit_base(prior, train, base)
    path = schedule_of(temperatures, prior)
    heard = witnesses(prior, partitions)
    log_z, end = annealing.sandwich(prior, path, num_chains, num_steps, train, on_progress)
    log_z = attrs.evolve(log_z, tolerance=tolerance)
    evidence = (*log_z_evidence(log_z), *heard)
    if reasons := objections(prior, log_z, path, num_chains, base) or contradictions(heard, log_z):
        return _with_log_z(Certificate("refused", reasons, evidence=evidence), log_z)
    log_f = -checks.free_energies(copy.deepcopy(prior).double(), test)  # [N]
    value, (low, high) = pooled(log_z), log_z.interval
    log_p = log_f - value
    ll, stderr = _mean(log_p)
    log_base = checks.log_base_rate(train, test)
    if log_base is not None:
        evidence += (Evidence("base rates", *_mean(log_base), "log p of independent pixels", "exact", True),)
    if reason := below_base_rate(ll, log_base, tolerance):
        return _with_log_z(Certificate("refused", (reason,), evidence=evidence), log_z)
    if raise_cases > 0:
        cases, log_f_cases = checks.spread(test, raise_cases), checks.spread(log_f, raise_cases)
        raised, raised_stderr = _mean(log_f_cases + annealing.log_p_ann(prior, cases, path, raise_chains))
        there = log_f_cases.mean().item() - value
        note = f"{len(cases)} data, {raise_chains} chains each; forward and reverse AIS give them {there:.2f}"
        evidence += (Evidence("RAISE", raised, raised_stderr, "log p_ann", "low", True, note),)
    if (log_csl := checks.conservative(prior, end, checks.spread(test, checks.CSL_CASES))) is not None:
        csl, csl_stderr = _mean(log_csl)
        evidence += (Evidence("CSL", csl, csl_stderr, "log p of the chain", "low", False, csl_note(len(log_csl))),)
        if (more := csl - checks.spread(log_p, len(log_csl)).mean().item()) > tolerance:
            reason = f"CSL gives {more:.1f} nats more than annealing; likely cause: chains that do not mix"
            return _with_log_z(Certificate("refused", (reason,), evidence=evidence), log_z)
    certificate = Certificate("certified", assumptions(log_z), evidence=evidence, test_ll=ll, test_ll_stderr=stderr)
    ends = {"test_ll_low": log_f.mean().item() - high, "test_ll_high": log_f.mean().item() - low}
    return _with_log_z(attrs.evolve(certificate, **ends), log_z)


def _with_log_z(certificate: Certificate, log_z: LogZ) -> Certificate:
    low, high = log_z.interval
    return attrs.evolve(certificate, log_z=pooled(log_z), log_z_low=low, log_z_high=high)


def _mean(values: Tensor) -> tuple[float, float | None]:
    count = len(values)
    return values.mean().item(), values.std().item() / math.sqrt(count) if count > 1 else None


def _fitting(prior: EnergyPrior, x: Tensor) -> Tensor:
    """Data in the shape and type of the prior's latents."""
    size = prior.event_shape.numel()
    if len(x) < 1 or x[0].numel() != size:
        raise UsageError(f"the model is over {size} bits, but the data have shape {list(x.shape)}; give [N, {size}]")
    if not torch.equal(x * x, x):
        raise UsageError("the data are not bits; threshold or sample them first")
    return x.reshape(len(x), *prior.event_shape).to(prior.chains)


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
