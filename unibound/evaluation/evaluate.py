"""How good a model is: its negative log-likelihood, with error bars, the side it errs on, and what that allows."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unibound import ranks, support
from unibound.claim import Side
from unibound.data.rows import Data, spread
from unibound.distributions import PointMass
from unibound.errors import UsageError
from unibound.evaluation.conclusion import Evaluation
from unibound.evaluation.independence import independent
from unibound.evaluation.memory import CACHED, MAX_MEMORY, bytes_per_particle
from unibound.evaluation.reach import Posterior, Reach, reach, require_known
from unibound.evaluation.tally import Mean, Tally
from unibound.joint import JointBound
from unibound.partition import (
    LogZ,
    NormalizedPrior,
    PartitionEstimator,
    ScaledPrior,
    annealing,
    enumeration,
    require_energy_prior,
)
from unibound.settings.defaults import two_sided

GROUP = 1000
"""Data whose particles are annealed together."""
MAX_CODES = 10_000
"""Data whose codes a base distribution is fitted to."""


@torch.no_grad()
def normalize(joint: JointBound, partition: PartitionEstimator, x: Data | None) -> NormalizedPrior | None:
    """Estimate what normalizes p; None if it is normalized already.

    The base distribution of an annealing path is fitted to codes of the data x [N, *X]; without data it stays as it is.
    """
    prior = joint.p.unnormalized
    if prior is None:
        return None
    prior = require_energy_prior(type(partition).__name__.lower(), prior)
    if x is not None:
        prior.fit_base(draw_codes(joint, x))
    with joint.evaluating():
        return partition.fit(prior)


def normalize_by_itself(joint: JointBound, x: Data) -> NormalizedPrior | None:
    """What normalizes p, where nobody says how to find it: listed if that is quick, else annealed from both sides.

    Raises:
        UsageError: an unnormalized prior that has no energy.
    """
    prior = joint.p.unnormalized
    if prior is None:
        return None
    prior = require_energy_prior("evaluation", prior)
    states = prior.enumeration()
    if states is not None and states.num_bits <= annealing.MAX_BITS:
        return ScaledPrior(prior, LogZ(enumeration.log_sum(prior)))
    return normalize(joint, two_sided(), x)


@torch.no_grad()
def draw_codes(joint: JointBound, x: Data) -> Tensor:
    """What the prior is over, drawn from q(tau | x): one state for each of at most 10000 data of x [N, *X]."""
    with joint.evaluating():
        batches = spread(x, MAX_CODES).split(1000)
        return torch.cat([joint.p.state(batch, joint.q(batch).sample()) for batch in batches])


def evaluate(
    joint: JointBound,
    x: Tensor,
    *,
    num_particles: int,
    normalized: NormalizedPrior | None = None,
    max_memory: int = MAX_MEMORY,
    levels: int | None = None,
    posterior: Posterior = "draws",
    on_progress: Callable[[int], object] = lambda done: None,
) -> Evaluation:
    """Estimate the negative log-likelihood of x by the K-particle bound, under one way to normalize p.

    See `evaluate_all`.

    Args:
        normalized: what normalizes p; found by `normalize_by_itself` where it is left out.
    """
    if normalized is None:
        normalized = normalize_by_itself(joint, x)
    options = {"num_particles": num_particles, "max_memory": max_memory, "levels": levels, "on_progress": on_progress}
    return evaluate_all(joint, x, [normalized], posterior=posterior, **options)[0]


@torch.no_grad()
def evaluate_all(
    joint: JointBound,
    x: Data,
    normalized: Sequence[NormalizedPrior | None],
    *,
    num_particles: int,
    max_memory: int = MAX_MEMORY,
    levels: int | None = None,
    posterior: Posterior = "draws",
    on_progress: Callable[[int], object] = lambda done: None,
) -> list[Evaluation]:
    """Estimate the negative log-likelihood of x by the K-particle bound, once per way to normalize p.

    Where a draw of q stands for one term of a bound, it is the mean of K of them, and the error bar covers terms and
    data. Ranks share the data; all ways share their particles, drawn and weighed in chunks that fit into `max_memory`.

    Args:
        joint: q and p; each module is left in the mode it was in.
        x: data [N, *X].
        normalized: what normalizes p, from `normalize`; None where p is normalized already.
        num_particles: particles K per datum.
        max_memory: bytes of particles held at once, by an upper estimate.
        levels: where x are so many levels scaled to [0, 1] and p(x | tau) is a density, bits per dimension are those of
            a level; elsewhere it plays no part.
        posterior: where the posterior is looked for, of some of the data, beyond what q's own draws show: by `draws`,
            at about the cost of the evaluation itself, by `ais`, or not at all, `none`; then the NLL has no lower end.
        on_progress: called with the number of data done.
    Raises:
        UsageError: no particles, no data, or no room for a single particle; q, p and x that do not fit together; an
            unnormalized p without what normalizes it.
    """
    if num_particles < 1 or len(x) < 1:
        raise UsageError(f"evaluation needs particles and data, but has {num_particles} and {len(x)}")
    if joint.p.unnormalized is not None and any(prior is None for prior in normalized):
        name = type(joint.p.unnormalized).__name__
        raise UsageError(f"log p* of {name} lacks its log Z: give what normalizes it, from normalize(joint, ais, x)")
    require_known(posterior)
    joint.check(x)
    with joint.evaluating():
        at_once = _particles_at_once(joint, x, max_memory)
        chunk = min(num_particles, at_once, 50_000)
        start, own = time.perf_counter(), [0.0] * len(normalized)
        results: list[list[Tensor]] = [[torch.zeros(4, 0, dtype=torch.float64, device=x.device)] for _ in normalized]
        tally_of = Mean if joint.draws_terms(x[:1]) else Tally
        mine = x if ranks.size() == 1 else x[ranks.share(len(x))]
        with ranks.apart():
            for group in mine.split(GROUP) if len(mine) else ():
                tallies = [tally_of(prior, num_particles) for prior in normalized]
                annealed = any(tally.num_draws is not None for tally in tallies)
                for batch in group.split(max(1, min(at_once, 50_000) // chunk)):
                    _add_particles(joint, batch, tallies, num_particles, chunk)
                    if not annealed:
                        on_progress(len(batch))
                for index, tally in enumerate(tallies):
                    before = time.perf_counter()
                    results[index].append(tally.close())  # [4, B]
                    own[index] += time.perf_counter() - before
                if annealed:
                    on_progress(len(group))
        about = _about(joint, x, levels)
        columns = [torch.cat([part.to(x.device) for part in ranks.gather(torch.cat(found, 1))], 1) for found in results]
        if not about["exact"]:
            about["reach"] = _reach(joint, x, normalized, columns, num_particles, at_once, posterior)
        shared = time.perf_counter() - start - sum(own)
    return [
        _conclude(prior, found, num_particles, shared + seconds, **about)
        for prior, found, seconds in zip(normalized, columns, own, strict=True)
    ]


def _particles_at_once(joint: JointBound, x: Data, max_memory: int) -> int:
    size = bytes_per_particle(joint, x[:1])
    at_once = max_memory // size
    if at_once < 1:
        raise UsageError(f"a memory of {max_memory} bytes does not hold one particle; allow more")
    return min(at_once, max(1, CACHED // size)) if x.device.type == "cpu" else at_once


def _add_particles(joint: JointBound, batch: Tensor, tallies: list[Tally], num_particles: int, chunk: int) -> None:
    """Draw all particles of a batch [B, *X], a chunk at a time, and let every tally see them."""
    for tally in tallies:
        tally.begin(batch)
    for drawn in range(0, num_particles, chunk):
        particles = joint.particles(batch, min(chunk, num_particles - drawn), whole=False)
        log_w, state = particles.log_weights.double(), joint.p.state(batch, particles.tau)  # [K, B], [K, B, *S]
        for tally in tallies:
            tally.add(state, log_w)


def _reach(
    joint: JointBound,
    x: Data,
    normalized: Sequence[NormalizedPrior | None],
    columns: list[Tensor],
    num_particles: int,
    at_once: int,
    posterior: Posterior,
) -> Reach | str:
    """How far the bounds may lie below log p, found once: what normalizes p by one number moves all of them alike."""
    for prior, (bound, *_) in zip(normalized, columns, strict=True):
        if prior is None:
            return reach(joint, x, bound, num_particles, at_once, posterior)
        if prior.of == "log p" and prior.log_z is not None:
            return reach(joint, x, bound + prior.log_z.value, num_particles, at_once, posterior)
    return "nothing here is a bound of log p by one log Z"


def _about(joint: JointBound, x: Data, levels: int | None) -> dict[str, Any]:
    """What kind of number the NLL is: of masses or densities, exact where q is the posterior, and of how many bits."""
    posterior = joint.q(x[:1])
    try:
        over = support.of(joint.p.conditional(posterior.sample()))
    except UsageError:
        over = None
    mass, dims, observed = support.is_discrete(over), float(x[:1].numel()), None
    if isinstance(over, support.partly):
        gone = sum(batch.isnan().sum().item() for batch in x.split(GROUP))
        dims = observed = dims - gone / len(x)
    scale = dims * math.log(levels - 1) if levels is not None and not mass else 0.0
    return {
        "mass": mass,
        "exact": isinstance(posterior, PointMass),
        "terms": joint.draws_terms(x[:1]),
        "dims": dims,
        "observed": observed,
        "scale": scale,
        "independent": independent(x, over),
    }


def _conclude(
    prior: NormalizedPrior | None,
    columns: Tensor,
    num_particles: int,
    seconds: float,
    *,
    mass: bool,
    exact: bool,
    terms: bool,
    dims: float,
    observed: float | None,
    scale: float,
    independent: float | None,
    reach: Reach | str = "",
) -> Evaluation:
    bound, ess, gap, variance = columns  # each [N]
    nll, count = -bound.mean().item(), len(bound)
    if prior is None:
        chains: float | None = 0.0
    elif prior.log_z is not None:
        chains = prior.log_z.stderr
    else:
        noise = variance.sum().sqrt().item() / count
        chains = None if math.isnan(noise) else noise
    over = Side.EQUAL if prior is None else Side(prior.side)
    lower = over in (Side.EQUAL, Side.LOWER)
    side = Side.NONE if not lower else Side.EQUAL if exact and over is Side.EQUAL else Side.UPPER
    found = None if num_particles < 2 or terms else gap.mean().item()
    return Evaluation(
        nll=nll,
        nll_stderr=bound.std().item() / math.sqrt(count) if count > 1 else math.nan,
        bits_per_dim=(nll + scale) / (math.log(2) * dims) if dims else math.nan,
        side=side,
        ess=ess.mean().item(),
        num_particles=num_particles,
        log_z=None if prior is None else prior.log_z,
        seconds=seconds,
        of="log p" if prior is None else prior.of,
        nll_chains_stderr=chains,
        gap=0.0 if exact else found,
        mass=mass,
        exact=exact,
        terms=terms,
        reach=reach,
        independent=independent,
        observed=observed,
        bounds=bound,
    )
