"""A certificate for a likelihood: an interval with what it rests on, or a refusal with the likely cause."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from unibound import support
from unibound.claim import Interval, Side
from unibound.data.splits import spread
from unibound.energies.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.evaluation.certify import checks, readings
from unibound.evaluation.certify.bases import Plan
from unibound.evaluation.certify.evidence import Evidence, assumptions, below_base_rate, certify_log_z, csl_note
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
        warnings: what speaks against the data, or the model, and refutes nothing.
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
    warnings: tuple[str, ...] = ()

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

    @property
    def document(self) -> dict[str, Any]:
        """It all as plain values; the ends of intervals by names of their own."""
        found = attrs.asdict(self)
        del found["log_z_interval"], found["test_ll_interval"]
        ends = ("log_z_low", "log_z_high", "test_ll_low", "test_ll_high")
        return found | {name: getattr(self, name) for name in ends}


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
    others: Mapping[str, EnergyPrior] = MappingProxyType({}),
    image: tuple[int, ...] | None = None,
    seed: int = 0,
    on_progress: Callable[[int], object] = lambda done: None,
) -> Certificate:
    """Certify or refuse the log-likelihood of data under an energy prior, such as an RBM.

    Forward annealing errs low on log Z, from whatever base, so the largest of its lower ends counts. Reverse annealing
    errs high from draws of the model; they are exact where it is small enough to be listed, and elsewhere the ends of
    the forward chains of all bases, drawn by their weights. Where the two agree, and neither rests on a few chains,
    log Z lies between them. The rest are checks: chains that begin at the data, reverse annealing of the data
    themselves (RAISE), a sampling-based likelihood (CSL).

    It is refused where something was proved against it. A suspicion, as that the data are likelier under independent
    pixels, is a warning.

    Args:
        prior: the model; not modified.
        data: test data, of what the prior is over [N, *Z], or [N, *X] with as many elements.
        train: data to fit the base distribution to and to begin Gibbs runs at; the test data by default.
        num_chains: chains M in each direction, and of the sampling-based likelihood.
        temperatures: number of even ones, the name of a schedule, or temperatures from 0 to 1.
        base: which base has all chains, where the others have half: the base rates of the data, or fair coins.
        tolerance: nats that the interval for log Z may be wide, and by which the two directions may disagree.
        num_steps: Gibbs steps before states are taken for draws of the model, where these cannot be exact.
        raise_cases: how many data are annealed in reverse.
        raise_chains: chains for each of these.
        partitions: other estimators of log Z, by name; one that contradicts the interval for log Z refuses it.
        others: what the weights may be instead of the prior, by what would have been done to them; refused if the data
            show that they are.
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
    shape = image or readings.image_shape(data)
    test, fitted = (_fitting(prior, x) for x in (data, data if train is None else train))
    plan = Plan(base, temperatures, num_chains, num_steps, tolerance)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        certificate = _certify(
            prior, test, fitted, shape, plan, raise_cases, raise_chains, partitions, others, on_progress
        )
    return attrs.evolve(certificate, num_data=len(test), seconds=time.perf_counter() - start)


def _certify(
    prior: EnergyPrior,
    test: Tensor,
    train: Tensor,
    shape: tuple[int, ...],
    plan: Plan,
    raise_cases: int,
    raise_chains: int,
    partitions: Mapping[str, PartitionEstimator],
    others: Mapping[str, EnergyPrior],
    on_progress: Callable[[int], object],
) -> Certificate:
    log_base, strange = checks.log_base_rate(train, test), None
    if support.same(prior.support, support.boolean):
        draws = annealing.start_states(prior, plan.few, plan.num_steps, train)[0]
        strange = readings.of_pixels(prior, test, shape, draws)
        if strange is not None and strange.explains:
            return Certificate("refused", (f"likely cause: {strange.words}, whatever log Z",))
    log_z = certify_log_z(prior, train, plan, partitions, on_progress, met=(spread(test, checks.MET),))
    if log_z.reasons:
        return refused(log_z.reasons, log_z.both, log_z.evidence)
    both, evidence = log_z.both, log_z.evidence
    log_f = -checks.free_energies(copy.deepcopy(prior).double(), test)  # [N]
    log_p = log_f - both.middle
    ll, stderr = _mean(log_p)
    if log_base is not None:
        evidence += (Evidence("base rates", *_mean(log_base), "log p of independent pixels", Side.EQUAL, True),)
    said = [doubt] if (doubt := below_base_rate(ll, log_base, plan.tolerance)) else []
    tried = [readings.of_weights(name, prior, test, train, log_p, plan, on_progress) for name, prior in others.items()]
    for reading in (reading.beats(ll, log_base) for reading in (strange, *tried) if reading is not None):
        if reading.explains:
            return refused((f"likely cause: {reading.words}",), both, evidence)
        said.append(f"{reading.words}, but below that of independent pixels all the same")
    if raise_cases > 0:
        cases, log_f_cases = spread(test, raise_cases), spread(log_f, raise_cases)
        log_r = annealing.log_p_ann(prior, cases, log_z.look.best.path, raise_chains)
        raised, raised_stderr = _mean(log_f_cases + log_r)
        there = log_f_cases.mean().item() - both.middle
        _, apart = _mean(log_r)  # of the difference: the spread of the data is in both
        note = f"{len(cases)} data, {raise_chains} chains each; forward and reverse AIS give them {there:.2f}"
        note += "" if apart is None else f" (+- {apart:.2f} beside)"
        evidence += (Evidence("RAISE", raised, raised_stderr, "log p_ann", Side.LOWER, True, note),)
    if (log_csl := checks.conservative(prior, log_z.look.draws, spread(test, checks.CSL_CASES))) is not None:
        csl, csl_stderr = _mean(log_csl)
        note = csl_note(len(log_csl))
        evidence += (Evidence("CSL", csl, csl_stderr, "log p of the chain", Side.LOWER, False, note),)
        if (more := csl - spread(log_p, len(log_csl)).mean().item()) > plan.tolerance:
            reason = f"CSL gives {more:.1f} nats more than annealing: its chains, or those behind log Z, do not mix"
            return refused((reason,), both, evidence)
    mean, low, high = log_f.mean().item(), both.interval.low, both.interval.high
    assert low is not None
    assert high is not None
    most = 0.0 if support.is_discrete(prior.support) else math.inf
    return Certificate(
        "certified",
        assumptions(both),
        log_z=both.middle,
        log_z_interval=both.interval,
        test_ll=min(ll, most),
        test_ll_interval=Interval(mean - high, min(mean - low, most)),
        test_ll_stderr=stderr,
        evidence=evidence,
        warnings=(*log_z.warnings, *said),
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
