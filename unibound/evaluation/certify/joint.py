"""A certificate for a trained model: log Z of its prior, and the likelihood that particles bound."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import attrs
import torch
from torch import Tensor

from unibound.claim import NORMAL_95, Interval, Side
from unibound.data.splits import spread
from unibound.distributions import PointMass
from unibound.errors import UsageError
from unibound.evaluation.certify import checks
from unibound.evaluation.certify.bases import Plan
from unibound.evaluation.certify.evidence import Evidence, assumptions, below_base_rate, certify_log_z, csl_note
from unibound.evaluation.certify.prior import Base, Certificate, certify, refused, require_sane
from unibound.evaluation.conclusion import MAX_GAP, Evaluation
from unibound.evaluation.evaluate import draw_codes, evaluate
from unibound.joint import JointBound
from unibound.partition import annealing
from unibound.partition.log_z import TOLERANCE, LogZ, PartitionEstimator, Sandwich, ScaledPrior, require_energy_prior


@torch.no_grad()
def certify_joint(
    joint: JointBound,
    test: Tensor,
    train: Tensor,
    *,
    num_particles: int = 5000,
    num_chains: int = 100,
    temperatures: int | str | Sequence[float] = "piecewise",
    base: Base = "data",
    tolerance: float = TOLERANCE,
    num_steps: int = 500,
    raise_cases: int = 100,
    raise_chains: int = 1,
    partitions: Mapping[str, PartitionEstimator] = MappingProxyType({}),
    seed: int = 0,
    on_progress: Callable[[int], object] = lambda done: None,
) -> Certificate:
    """Certify or refuse the log-likelihood of test data [N, *X] under a trained model.

    Where the latent is the datum this is `certify` of the prior. Elsewhere the K-particle bound errs low by
    what shrinks as 1 / K, and the upper end of the likelihood adds twice what the bound gained when its
    particles were doubled; it is left open where that is still much.

    Args:
        joint: q and p; neither they nor the mode they are in are changed.
        test: data to certify.
        train: data whose codes the base distribution is fitted to, and Gibbs runs begin at [N', *X].
        num_particles: particles K per datum.

    See `certify` for the others.
    """
    start = time.perf_counter()
    require_sane(tolerance, num_steps, raise_cases, raise_chains)
    joint.check(test)
    unnormalized = joint.p.unnormalized
    if unnormalized is not None and isinstance(joint.q(test[:1]), PointMass):
        return certify(
            unnormalized, test, train=train, num_chains=num_chains, temperatures=temperatures, base=base,
            tolerance=tolerance, num_steps=num_steps, raise_cases=raise_cases, raise_chains=raise_chains,
            partitions=partitions, seed=seed, on_progress=on_progress,
        )  # fmt: skip
    if num_particles < 1:  # said before an hour of annealing, not after it
        raise UsageError(f"certify needs particles, but has {num_particles}")
    with torch.random.fork_rng(), joint.evaluating():
        torch.manual_seed(seed)
        log_base = checks.log_base_rate(train, test)
        evidence: tuple[Evidence, ...] = ()
        said: tuple[str, ...] = ()
        if log_base is not None:
            value = log_base.mean().item()
            evidence = (Evidence("base rates", value, None, "log p of independent pixels", Side.EQUAL, True),)
        if unnormalized is None:
            if partitions:
                raise UsageError(f"the prior is normalized and has no log Z; leave {', '.join(partitions)} out")
            result = evaluate(joint, test, num_particles=num_particles)
            certificate = _conclude(result, LogZ(0.0), evidence, ("log Z is 0: the prior is normalized",))
        else:
            codes = draw_codes(joint, train)
            prior = copy.deepcopy(require_energy_prior("certify", unnormalized)).eval()
            plan = Plan(base, temperatures, num_chains, num_steps, tolerance)
            found = certify_log_z(prior, codes, plan, partitions, on_progress)
            both, evidence, said = found.both, (*found.evidence, *evidence), found.warnings
            if found.reasons:
                return attrs.evolve(refused(found.reasons, both, evidence), num_data=len(test))
            middle = ScaledPrior(prior, attrs.evolve(both.upper, value=both.middle))
            result = evaluate(joint, test, num_particles=num_particles, normalized=middle)
            if len(cases := spread(test, raise_cases)) and raise_cases:
                raised = annealing.RaisedPrior(prior, found.look.best.path, raise_chains, 1)
                bound = evaluate(joint, cases, num_particles=num_particles, normalized=raised)
                note = f"{len(cases)} data, one latent each by its weight"
                evidence += (Evidence("RAISE", -bound.nll, bound.nll_stderr, "log p_ann", Side.LOWER, True, note),)
            log_csl = checks.conservative(prior, found.look.draws, spread(test, checks.CSL_CASES), joint.p)
            if log_csl is not None:
                csl, stderr = log_csl.mean().item(), log_csl.std().item() / math.sqrt(len(log_csl))
                note = csl_note(len(log_csl))
                evidence += (Evidence("CSL", csl, stderr, "log p of the chain", Side.LOWER, False, note),)
            certificate = _conclude(result, both, evidence, assumptions(both))
    if (doubt := below_base_rate(-result.nll, log_base, tolerance)) is not None:
        said = (*said, doubt)
    certificate = attrs.evolve(certificate, warnings=said)
    return attrs.evolve(certificate, num_data=len(test), seconds=time.perf_counter() - start)


def _conclude(
    result: Evaluation, log_z: LogZ | Sandwich, evidence: tuple[Evidence, ...], reasons: tuple[str, ...]
) -> Certificate:
    assert result.bounds is not None
    ll, count, value = -result.nll, len(result.bounds), log_z.middle if isinstance(log_z, Sandwich) else log_z.value
    low, high = log_z.interval.low or 0.0, log_z.interval.high or 0.0
    gap = 0.0 if result.gap is None else max(result.gap, 0.0)
    # Mean relative variance of a bound is about twice what it lacks, which is about what it gained by doubling.
    noise = NORMAL_95 * math.sqrt(2 * gap / count)
    top = None
    if result.gap is not None and result.gap <= MAX_GAP:
        top = ll + 2 * gap + math.hypot(noise, value - low)
        top = min(top, 0.0) if result.mass else top
        reasons = (*reasons, "the upper end takes it that q's draws reach every mode of the posterior")
        if gap > 1e-9:
            reasons = (*reasons, "and that the particles' weights have a variance")
    else:
        reasons = (*reasons, "no upper end: the bound still rises as particles double; use more --num-particles")
    note = f"{result.num_particles} particles per datum; {gap:.3f} nats gained by doubling them"
    bound = Evidence("particles", ll, result.nll_stderr, "log p", Side.LOWER, log_z.side is Side.EQUAL, note)
    return Certificate(
        "certified",
        reasons,
        log_z=value,
        log_z_interval=log_z.interval,
        test_ll=ll,
        test_ll_interval=Interval(ll - math.hypot(noise, high - value), top),
        test_ll_stderr=result.nll_stderr,
        evidence=(*evidence, bound),
    )
