"""A certificate for a trained model: log Z of its prior, and the likelihood that particles bound."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import attrs
import torch
from torch import Tensor

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
from unibound.evaluation.certify.prior import Base, Certificate, certify, require_sane
from unibound.evaluation.evaluate import MAX_GAP, Evaluation, draw_codes, evaluate
from unibound.joint import JointBound
from unibound.partition import annealing
from unibound.partition.log_z import NORMAL_95, TOLERANCE, LogZ, PartitionEstimator, ScaledPrior, require_energy_prior


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
        joint: q and p; put in evaluation mode. The prior is not modified.
        test: data to certify.
        train: data whose codes the base distribution is fitted to, and Gibbs runs begin at [N', *X].
        num_particles: particles K per datum.

    See `certify` for the others.
    """
    start = time.perf_counter()
    require_sane(tolerance, num_steps, raise_cases, raise_chains)
    codes = draw_codes(joint, train)
    unnormalized = joint.p.unnormalized
    if unnormalized is not None and torch.equal(codes, train[: len(codes)].to(codes)):
        return certify(
            unnormalized, test, train=train, num_chains=num_chains, temperatures=temperatures, base=base,
            tolerance=tolerance, num_steps=num_steps, raise_cases=raise_cases, raise_chains=raise_chains,
            partitions=partitions, seed=seed, on_progress=on_progress,
        )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        log_base = checks.log_base_rate(train, test)
        evidence: tuple[Evidence, ...] = ()
        if log_base is not None:
            value = log_base.mean().item()
            evidence = (Evidence("base rates", value, None, "log p of independent pixels", "exact", True),)
        if unnormalized is None:
            if partitions:
                raise UsageError(f"the prior is normalized and has no log Z; leave {', '.join(partitions)} out")
            result = evaluate(joint, test, num_particles=num_particles)
            certificate = _conclude(result, LogZ(0.0), evidence, ("log Z is 0: the prior is normalized",), len(test))
        else:
            prior = copy.deepcopy(require_energy_prior("certify", unnormalized)).eval()
            fit_base(prior, codes, base)
            path = schedule_of(temperatures, prior)
            heard = witnesses(prior, partitions)
            log_z, end = annealing.sandwich(prior, path, num_chains, num_steps, codes, on_progress)
            log_z = attrs.evolve(log_z, tolerance=tolerance)
            evidence = (*log_z_evidence(log_z), *heard, *evidence)
            if reasons := objections(prior, log_z, path, num_chains, base) or contradictions(heard, log_z):
                low, high = log_z.interval
                return Certificate("refused", reasons, pooled(log_z), low, high, evidence=evidence, num_data=len(test))
            middle = ScaledPrior(prior, attrs.evolve(log_z, value=pooled(log_z), opposite=None))
            result = evaluate(joint, test, num_particles=num_particles, normalized=middle)
            if len(cases := checks.spread(test, raise_cases)):
                raised = annealing.RaisedPrior(prior, path, raise_chains, 1)
                bound = evaluate(joint, cases, num_particles=num_particles, normalized=raised)
                note = f"{len(cases)} data, one latent each by its weight"
                evidence += (Evidence("RAISE", -bound.nll, bound.nll_stderr, "log p_ann", "low", True, note),)
            log_csl = checks.conservative(prior, end, checks.spread(test, checks.CSL_CASES), joint.p)
            if log_csl is not None:
                csl, stderr = log_csl.mean().item(), log_csl.std().item() / math.sqrt(len(log_csl))
                note = csl_note(len(log_csl))
                evidence += (Evidence("CSL", csl, stderr, "log p of the chain", "low", False, note),)
            certificate = _conclude(result, log_z, evidence, assumptions(log_z), len(test))
    if (reason := below_base_rate(-result.nll, log_base, tolerance)) is not None:
        certificate = attrs.evolve(
            certificate, verdict="refused", reasons=(reason,), test_ll=None, test_ll_low=None, test_ll_high=None,
            test_ll_stderr=None,
        )  # fmt: skip
    return attrs.evolve(certificate, num_data=len(test), seconds=time.perf_counter() - start)


def _conclude(
    result: Evaluation, log_z: LogZ, evidence: tuple[Evidence, ...], reasons: tuple[str, ...], count: int
) -> Certificate:
    ll, value, (low, high) = -result.nll, pooled(log_z), log_z.interval
    gap = 0.0 if result.gap is None else max(result.gap, 0.0)
    # Mean relative variance of a bound is about twice what it lacks, which is about what it gained by doubling.
    noise = NORMAL_95 * math.sqrt(2 * gap / count)
    top = None
    if result.gap is not None and result.gap <= MAX_GAP:
        top = ll + 2 * gap + math.hypot(noise, value - low)
        if gap > 1e-9:
            reasons = (*reasons, "the upper end takes it that the particles' weights have a variance")
    else:
        reasons = (*reasons, "no upper end: the bound still rises as particles double; use more --num-particles")
    note = f"{result.num_particles} particles per datum; {gap:.3f} nats gained by doubling them"
    bound = Evidence("particles", ll, result.nll_stderr, "log p", "low", log_z.side == "equal", note)
    return Certificate(
        "certified", reasons, value, low, high, ll, ll - math.hypot(noise, high - value), top, result.nll_stderr,
        evidence=(*evidence, bound),
    )  # fmt: skip
