"""How good a model is: its negative log-likelihood, with error bars, the side it errs on, and what that allows."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor

from unibound.errors import UsageError
from unibound.evaluation.memory import bytes_per_particle
from unibound.evaluation.tally import Tally
from unibound.joint import JointBound
from unibound.partition.log_z import NORMAL_95, LogZ, NormalizedPrior, PartitionEstimator, require_energy_prior

NllSide = Literal["upper", "none"]

MAX_MEMORY = 2**30
"""Bytes of particles held at once, by default."""
MAX_GAP = 0.5
"""Nats by which the bound may still rise as particles double, where two ends are claimed for the NLL."""
GROUP = 1000
"""Data whose particles are annealed together."""
MAX_CODES = 10_000
"""Data whose codes a base distribution is fitted to."""
CACHED = 2**25
"""Bytes of particles held at once on a CPU, whatever it has: past its caches they cost half as much again."""


@attrs.frozen
class Evaluation:
    """Negative log-likelihood of a data set under a model, in nats.

    Args:
        nll: mean over the data of -L_K.
        nll_stderr: its standard error over the data.
        bits_per_dim: nll in bits per element of a datum.
        side: `upper` if the expected nll is at least the true one; `none` if log Z, estimated from below,
            may push it down by more than the K-particle bound pushes it up.
        ess: mean effective sample size of the particles' weights, out of `num_particles`.
        num_particles: particles K per datum.
        log_z: what normalized the prior; None if it was normalized already, or latent by latent.
        seconds: what it took.
        of: what nll is the negative of, or bounds: `log p`, or `log p_ann` of the annealing model.
        nll_chains_stderr: standard error of nll over annealing chains; 0.0 where there are none, None if unknown.
        gap: mean of L_K - L_{K/2}, an estimate of what L_K still lacks; None for one particle.
    """

    nll: float
    nll_stderr: float
    bits_per_dim: float
    side: NllSide
    ess: float
    num_particles: int
    log_z: LogZ | None
    seconds: float
    of: str = "log p"
    nll_chains_stderr: float | None = 0.0
    gap: float | None = None

    @property
    def trouble(self) -> str | None:
        """Why nothing may be concluded; None where something may."""
        return None if self.log_z is None else self.log_z.trouble

    @property
    def interval(self) -> tuple[float, float] | None:
        """A 95% interval for the NLL over data like these; None where both ends cannot be claimed."""
        high = self.ceiling
        if high is None or self.of != "log p" or self.gap is None or self.gap > MAX_GAP:
            return None
        # What L_K lacks shrinks as 1 / K, so L_K - L_{K/2} estimates it; twice that leaves room for its error.
        slack = NORMAL_95 * self.nll_stderr
        flattered = 0.0 if self.log_z is None else self.log_z.interval[1] - self.log_z.value
        blamed = 0.0 if self.log_z is None else self.log_z.value - self.log_z.interval[0]
        low = self.nll - 2 * max(self.gap, 0.0) - math.hypot(slack, blamed)
        return low, self.nll + math.hypot(slack, flattered)

    @property
    def ceiling(self) -> float | None:
        """With 97.5% confidence the NLL is at most this; None where log Z is not to be trusted."""
        if self.trouble is not None or not math.isfinite(self.nll) or math.isnan(self.nll_stderr):
            return None
        above = 0.0 if self.log_z is None else self.log_z.interval[1] - self.log_z.value
        return self.nll + math.hypot(NORMAL_95 * self.nll_stderr, above)

    @property
    def conclusion(self) -> str:
        """What may be concluded, in words."""
        if self.trouble is not None:
            return f"no claim: log Z is not to be trusted: {self.trouble}"
        if self.ceiling is None:
            return "no claim: one datum has no error bar; evaluate more"
        if self.of != "log p":
            return (
                f"the NLL of the annealing model, a normalized model close to this one, is at most {self.ceiling:.2f} "
                "nats with 97.5% confidence; of the NLL of the model itself this is no bound"
            )
        if self.interval is None:
            why = "one particle does not tell what its bound lacks"
            if self.gap is not None:
                why = f"the bound still rises by {self.gap:.2f} nats as particles double; use more particles"
            return f"the NLL is at most {self.ceiling:.2f} nats with 97.5% confidence{self._given}; no lower end: {why}"
        low, high = self.interval
        assumed = self._assumptions
        if self.gap is not None and self.gap > 1e-9:
            assumed.append("that the particles' weights have a variance (see unibound diagnose)")
        given = f", given {' and '.join(assumed)}" if assumed else ""
        return f"the NLL lies in [{low:.2f}, {high:.2f}] nats with 95% confidence{given}"

    @property
    def _assumptions(self) -> list[str]:
        if self.log_z is None or self.log_z.side == "equal":
            return []
        if self.log_z.heuristic:
            return ["that the Gibbs run behind the upper side of log Z reached the model"]
        if self.log_z.opposite is None:
            return ["that annealing found every mode (bdmc looks from the other side)"]
        return []

    @property
    def _given(self) -> str:
        return "".join(f", given {assumption}" for assumption in self._assumptions)


@torch.no_grad()
def normalize(joint: JointBound, partition: PartitionEstimator, x: Tensor) -> NormalizedPrior | None:
    """Estimate what normalizes p; None if it is normalized already.

    The base distribution of an annealing path is fitted to codes of the data x [N, *X].
    """
    prior = joint.p.unnormalized
    if prior is None:
        return None
    prior = require_energy_prior(type(partition).__name__.lower(), prior)
    prior.fit_base(draw_codes(joint, x))
    return partition.fit(prior)


@torch.no_grad()
def draw_codes(joint: JointBound, x: Tensor) -> Tensor:
    """A draw of q(tau | x) for each of the first 10000 data x [N, *X]; puts the joint in evaluation mode."""
    joint.eval()
    return torch.cat([joint.q(batch).sample() for batch in x[:MAX_CODES].split(1000)])


def evaluate(
    joint: JointBound,
    x: Tensor,
    *,
    num_particles: int,
    normalized: NormalizedPrior | None = None,
    max_memory: int = MAX_MEMORY,
    on_progress: Callable[[int], object] = lambda done: None,
) -> Evaluation:
    """Estimate the negative log-likelihood of x by the K-particle bound, under one way to normalize p.

    See `evaluate_all`.
    """
    options = {"num_particles": num_particles, "max_memory": max_memory, "on_progress": on_progress}
    return evaluate_all(joint, x, [normalized], **options)[0]


@torch.no_grad()
def evaluate_all(
    joint: JointBound,
    x: Tensor,
    normalized: Sequence[NormalizedPrior | None],
    *,
    num_particles: int,
    max_memory: int = MAX_MEMORY,
    on_progress: Callable[[int], object] = lambda done: None,
) -> list[Evaluation]:
    """Estimate the negative log-likelihood of x by the K-particle bound, once per way to normalize p.

    All share their particles, which are drawn and weighed in chunks that fit into `max_memory`.

    Args:
        joint: q and p; put in evaluation mode.
        x: data [N, *X].
        normalized: what normalizes p, from `normalize`.
        num_particles: particles K per datum.
        max_memory: bytes of particles held at once, by an upper estimate.
        on_progress: called with the number of data done.
    Raises:
        UsageError: no particles, no data, or no room for a single particle.
    """
    if num_particles < 1 or len(x) < 1:
        raise UsageError(f"evaluation needs particles and data, but has {num_particles} and {len(x)}")
    joint.eval()
    size = bytes_per_particle(joint, x[:1])
    at_once = max_memory // size
    if at_once < 1:
        raise UsageError(f"a memory of {max_memory} bytes does not hold one particle; allow more")
    if x.device.type == "cpu":
        at_once = min(at_once, max(1, CACHED // size))
    chunk = min(num_particles, at_once, 50_000)
    start, own = time.perf_counter(), [0.0] * len(normalized)
    results: list[list[Tensor]] = [[] for _ in normalized]
    for group in x.split(GROUP):
        tallies = [Tally(prior, num_particles) for prior in normalized]
        for batch in group.split(max(1, min(at_once, 50_000) // chunk)):
            for tally in tallies:
                tally.begin(batch)
            for drawn in range(0, num_particles, chunk):
                particles = joint.particles(batch, min(chunk, num_particles - drawn))
                log_w = particles.log_weights.double()  # [K, B]
                for tally in tallies:
                    tally.add(particles.tau, log_w)
            if all(tally.prior is None or tally.prior.num_draws is None for tally in tallies):
                on_progress(len(batch))
        for index, tally in enumerate(tallies):
            before = time.perf_counter()
            results[index].append(tally.close())  # [4, B]
            own[index] += time.perf_counter() - before
        if any(tally.prior is not None and tally.prior.num_draws is not None for tally in tallies):
            on_progress(len(group))
    shared = time.perf_counter() - start - sum(own)
    return [
        _conclude(prior, torch.cat(parts, 1), num_particles, x[0].numel(), shared + seconds)
        for prior, parts, seconds in zip(normalized, results, own, strict=True)
    ]


def _conclude(
    prior: NormalizedPrior | None, columns: Tensor, num_particles: int, dims: int, seconds: float
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
    lower = prior is None or prior.side in ("equal", "stochastic_lower")
    return Evaluation(
        nll=nll,
        nll_stderr=bound.std().item() / math.sqrt(count) if count > 1 else math.nan,
        bits_per_dim=nll / (math.log(2) * dims),
        side="upper" if lower else "none",
        ess=ess.mean().item(),
        num_particles=num_particles,
        log_z=None if prior is None else prior.log_z,
        seconds=seconds,
        of="log p" if prior is None else prior.of,
        nll_chains_stderr=chains,
        gap=None if num_particles < 2 else gap.mean().item(),
    )
