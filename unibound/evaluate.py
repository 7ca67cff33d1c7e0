"""How good a model is: its negative log-likelihood, with an error bar and the side it errs on."""

import math
import time
from collections.abc import Callable
from typing import Literal

import attrs
import torch
from torch import Tensor

from unibound.joint import JointBound
from unibound.partition import LogZ, NormalizedPrior, PartitionEstimator, require_energy_prior

NllSide = Literal["upper", "none"]


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
        log_z: what normalized the prior; None if it was normalized already.
        seconds: what it took.
    """

    nll: float
    nll_stderr: float
    bits_per_dim: float
    side: NllSide
    ess: float
    num_particles: int
    log_z: LogZ | None
    seconds: float

    @property
    def conclusion(self) -> str:
        """What may be concluded, in words."""
        if self.log_z is not None and not self.log_z.trustworthy:
            return (
                f"log Z is not to be trusted: {self.log_z.ess:.1f} of {self.log_z.num_chains} chains carry it; "
                "use more temperatures"
            )
        if self.side == "upper":
            return "the NLL is an upper bound in expectation: the model is at least this good"
        assert self.log_z is not None
        return (
            f"the {self.num_particles}-particle bound errs high; log Z errs low, which flatters the NLL "
            f"by about {self.log_z.stderr:.2g} nats"
        )


@torch.no_grad()
def normalize(
    joint: JointBound, partition: PartitionEstimator, x: Tensor, max_codes: int = 10_000
) -> NormalizedPrior | None:
    """Estimate what normalizes p; None if it is normalized already.

    The base distribution of an annealing path is fitted to codes of the data x [N, *X].
    """
    prior = joint.p.unnormalized
    if prior is None:
        return None
    prior = require_energy_prior(type(partition).__name__.lower(), prior)
    joint.eval()
    prior.fit_base(torch.cat([joint.q(batch).sample() for batch in x[:max_codes].split(1000)]))
    return partition.fit(prior)


@torch.no_grad()
def evaluate(
    joint: JointBound,
    x: Tensor,
    *,
    num_particles: int,
    normalized: NormalizedPrior | None = None,
    particles_at_once: int = 50_000,
    on_progress: Callable[[int], object] = lambda done: None,
) -> Evaluation:
    """Estimate the negative log-likelihood of x by the K-particle bound.

    Args:
        joint: q and p; put in evaluation mode.
        x: data [N, *X].
        num_particles: particles K per datum.
        normalized: what normalizes p, from `normalize`.
        particles_at_once: draws held in memory; particles are streamed beyond it.
        on_progress: called with the number of data done.
    """
    start = time.perf_counter()
    joint.eval()
    bounds, sizes = [], []
    chunk = max(1, min(num_particles, particles_at_once))
    for batch in x.split(max(1, particles_at_once // chunk)):
        log_sum, log_square = torch.full((2, len(batch)), -math.inf, dtype=torch.float64, device=x.device)
        for drawn in range(0, num_particles, chunk):
            particles = joint.particles(batch, min(chunk, num_particles - drawn))
            log_w = particles.log_weights.double()  # [K, B]
            if normalized is not None:
                log_w = log_w + normalized.log_correction(particles.tau)
            log_sum = torch.logaddexp(log_sum, log_w.logsumexp(0))
            log_square = torch.logaddexp(log_square, (2 * log_w).logsumexp(0))
        bounds.append(log_sum - math.log(num_particles))
        sizes.append((2 * log_sum - log_square).exp())
        on_progress(len(batch))
    nll = -torch.cat(bounds)  # [N]
    return Evaluation(
        nll=nll.mean().item(),
        nll_stderr=nll.std().item() / math.sqrt(len(nll)) if len(nll) > 1 else math.nan,
        bits_per_dim=nll.mean().item() / (math.log(2) * x[0].numel()),
        side="none" if normalized is not None and normalized.side != "equal" else "upper",
        ess=torch.cat(sizes).mean().item(),
        num_particles=num_particles,
        log_z=None if normalized is None else normalized.log_z,
        seconds=time.perf_counter() - start,
    )
