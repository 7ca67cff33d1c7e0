"""A certificate for a trained model: log Z of its prior, and the likelihood that particles bound."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import attrs
import torch
from torch import Tensor

from unibound.claim import Side
from unibound.data.splits import spread
from unibound.distributions import PointMass
from unibound.errors import UsageError
from unibound.evaluation.certify import checks
from unibound.evaluation.certify.bases import Plan
from unibound.evaluation.certify.evidence import Evidence, assumptions, certify_log_z, csl_note
from unibound.evaluation.certify.likelihood import conclude, gains
from unibound.evaluation.certify.prior import Base, Certificate, certify, refused, require_sane
from unibound.evaluation.evaluate import draw_codes, evaluate
from unibound.evaluation.reach import Posterior, require_known
from unibound.joint import JointBound
from unibound.partition import annealing
from unibound.partition.log_z import TOLERANCE, LogZ, PartitionEstimator, ScaledPrior, require_energy_prior


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
    posterior: Posterior | str = "ais",
    seed: int = 0,
    on_progress: Callable[[int], object] = lambda done: None,
) -> Certificate:
    """Certify or refuse the log-likelihood of test data [N, *X] under a trained model.

    Where the latent is the datum this is `certify` of the prior. Elsewhere the K-particle bound errs low, which is the
    lower end of the likelihood. Its upper end is claimed where bounds that begin elsewhere than at q, of some of the
    data, agree on how far that lies below log p, where they bracket log p of the model's own data closely, and where
    no other lower bound (CSL, RAISE) lies above it; it is left open, with the reason, where they do not.

    Args:
        joint: q and p; neither they nor the mode they are in are changed.
        test: data to certify.
        train: data whose codes the base distribution is fitted to, and Gibbs runs begin at [N', *X].
        num_particles: particles K per datum.
        posterior: how the posterior is looked for beyond q's draws: by `ais`, or `draws`, or `none`.

    See `certify` for the others.
    """
    start = time.perf_counter()
    require_sane(tolerance, num_steps, raise_cases, raise_chains)
    look = require_known(posterior)
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
        rivals: dict[str, Tensor] = {}
        if log_base is not None:
            mean = log_base.mean().item()
            evidence = (Evidence("base rates", mean, None, "log p of independent pixels", Side.EQUAL, True),)
        if unnormalized is None:
            if partitions:
                raise UsageError(f"the prior is normalized and has no log Z; leave {', '.join(partitions)} out")
            result = evaluate(joint, test, num_particles=num_particles, posterior=look)
            log_z, reasons = LogZ(0.0), ("log Z is 0: the prior is normalized",)
        else:
            codes = draw_codes(joint, train)
            prior = copy.deepcopy(require_energy_prior("certify", unnormalized)).eval()
            plan = Plan(base, temperatures, num_chains, num_steps, tolerance)
            found = certify_log_z(prior, codes, plan, partitions, on_progress)
            both, evidence, said = found.both, (*found.evidence, *evidence), found.warnings
            if found.reasons:
                return attrs.evolve(refused(found.reasons, both, evidence), num_data=len(test))
            middle = ScaledPrior(prior, attrs.evolve(both.upper, value=both.middle))
            result = evaluate(joint, test, num_particles=num_particles, normalized=middle, posterior=look)
            number = torch.arange(len(test), device=test.device)
            if raise_cases:
                cases = spread(test, raise_cases)
                raised = annealing.RaisedPrior(prior, found.look.best.path, raise_chains, 1)
                bound = evaluate(joint, cases, num_particles=num_particles, normalized=raised, posterior="none")
                note = f"{len(cases)} data, one latent each by its weight"
                evidence += (Evidence("RAISE", -bound.nll, bound.nll_stderr, "log p_ann", Side.LOWER, True, note),)
                assert bound.bounds is not None
                rivals["RAISE"] = gains(result, bound.bounds, spread(number, raise_cases))
            log_csl = checks.conservative(prior, found.look.draws, spread(test, checks.CSL_CASES), joint.p)
            if log_csl is not None:
                csl, stderr = log_csl.mean().item(), log_csl.std().item() / math.sqrt(len(log_csl))
                note = csl_note(len(log_csl))
                evidence += (Evidence("CSL", csl, stderr, "log p of the chain", Side.LOWER, False, note),)
                rivals["CSL"] = gains(result, log_csl, spread(number, checks.CSL_CASES))
            log_z, reasons = both, assumptions(both)
        mean_base = None if log_base is None else log_base.mean().item()
        certificate = conclude(result, log_z, evidence, reasons, rivals, mean_base)
        certificate = attrs.evolve(certificate, warnings=(*said, *certificate.warnings))
    return attrs.evolve(certificate, num_data=len(test), seconds=time.perf_counter() - start)
