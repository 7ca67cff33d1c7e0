"""Sums over particles that arrive in chunks: the bound of each datum, and what it takes to correct it."""

import math

import torch
from torch import Tensor

from unibound.errors import UsageError
from unibound.partition.log_z import NormalizedPrior
from unibound.weights import effective_sample_size, log_mean_exp


class Tally:
    """Running sums of one group of data under one way to normalize p; memory does not grow with K.

    Where the correction log r of a particle is cheap it is added to every log-weight. Where it costs
    chains, it is asked for at S particles per datum only. With weights w* and indices i_s drawn in
    proportion to them,

        (1/K) sum_k w*_k  (1/S) sum_s r(tau_{i_s})

    has the expectation of (1/K) sum_k w*_k r(tau_k): particles that weigh nothing cost nothing, and nothing
    is biased. The S draws are kept as a reservoir, each replaced by one of a chunk with the probability
    that the chunk holds it.

    Args:
        prior: what normalizes p; None if nothing need be done.
        num_particles: particles K per datum, over all chunks.
    """

    def __init__(self, prior: NormalizedPrior | None, num_particles: int) -> None:
        self.prior, self.num_particles = prior, num_particles
        self.num_draws = None if prior is None else prior.num_draws
        self.sums: list[Tensor] = []  # per batch [4, B]
        self.kept: list[Tensor] = []  # per batch [S, B, *Z]
        self.halves = [0, 0]  # particles of the latest batch in either half

    def begin(self, x: Tensor) -> None:
        """Turn to the next batch x [B, *X]."""
        # log sums of w, of w squared, and of w over either half of the particles
        self.sums.append(torch.full((4, len(x)), -math.inf, dtype=torch.float64, device=x.device))
        self.halves = [0, 0]

    def add(self, tau: Tensor, log_w: Tensor) -> None:
        """Take in particles tau [K, B, *Z] of the batch, with log p* - log q [K, B], float64."""
        if self.prior is not None and self.num_draws is None:
            log_w = log_w + self.prior.log_correction(tau)
        chunk = log_w.logsumexp(0)  # [B]
        # Every other particle of all that were drawn, however they were split into chunks.
        halves = [log_w[(parity + sum(self.halves)) % 2 :: 2] for parity in (0, 1)]
        self.halves = [done + len(half) for done, half in zip(self.halves, halves, strict=True)]
        new = torch.stack([chunk, (2 * log_w).logsumexp(0), *map(_log_sum, halves)])
        self.sums[-1] = torch.logaddexp(self.sums[-1], new)
        if self.num_draws is not None:
            # log-weights of -inf throughout leave nothing to choose from; any particle stands for them
            weights = log_w.softmax(0).nan_to_num(1.0)
            chosen = torch.multinomial(weights.T, self.num_draws, replacement=True).T  # [S, B]
            candidates = tau[chosen, torch.arange(len(chunk), device=tau.device)]  # [S, B, *Z]
            if len(self.kept) < len(self.sums):
                self.kept.append(candidates)
                return
            share = (chunk - self.sums[-1][0]).exp().nan_to_num(0.0)  # [B]
            replaced = torch.rand(chosen.shape, dtype=share.dtype, device=share.device) < share
            replaced = replaced.view(*chosen.shape, *[1] * (candidates.dim() - 2))
            self.kept[-1] = torch.where(replaced, candidates, self.kept[-1])

    def close(self) -> Tensor:
        """Bound, effective sample size, gap and relative variance of the correction, of each datum: [4, N]."""
        total, square, even, odd = torch.cat(self.sums, 1)  # each [N]
        bound = total - math.log(self.num_particles)
        counts = [math.log(max(1, count)) for count in self.halves]
        gap = bound - (even + odd - sum(counts)) / 2
        variance = torch.zeros_like(bound)
        if self.num_draws is not None:
            assert self.prior is not None
            log_r = self.prior.log_correction(torch.cat(self.kept, 1))  # [S, N]
            bound = bound + log_mean_exp(log_r)
            variance.fill_(math.nan)
            if self.num_draws > 1:
                variance = (self.num_draws / effective_sample_size(log_r) - 1) / (self.num_draws - 1)
        return torch.stack([bound, (2 * total - square).exp(), gap, variance])


class Mean(Tally):
    """Running means of log-weights that are one term of a bound each: their mean is the bound, and no K makes it more.

    Raises:
        UsageError: where the correction costs chains of its own.
    """

    def __init__(self, prior: NormalizedPrior | None, num_particles: int) -> None:
        super().__init__(prior, num_particles)
        if self.num_draws is not None:
            raise UsageError(
                "terms of a bound are averaged, and cannot be weighed by annealing chains; use a partition estimator "
                "of log Z, such as ais"
            )

    def begin(self, x: Tensor) -> None:
        self.sums.append(torch.zeros(4, len(x), dtype=torch.float64, device=x.device))

    def add(self, tau: Tensor, log_w: Tensor) -> None:
        if self.prior is not None:
            log_w = log_w + self.prior.log_correction(tau)
        self.sums[-1][0] += log_w.sum(0)

    def close(self) -> Tensor:
        found = torch.cat(self.sums, 1)
        found[0] /= self.num_particles
        found[1] = self.num_particles
        return found


def _log_sum(log_w: Tensor) -> Tensor:
    return log_w.logsumexp(0) if len(log_w) else log_w.new_full(log_w.shape[1:], -math.inf)
