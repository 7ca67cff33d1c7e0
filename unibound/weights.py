"""Pure functions on log-weights [K, B]: K particles of each of B data. Values are in nats."""

import math
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from unibound import kernels
from unibound.errors import UsageError


def log_mean_exp(log_w: Tensor) -> Tensor:
    """The K-particle bound log (1/K) sum_k w_k of each datum: [K, B] to [B]."""
    return log_w.logsumexp(0) - math.log(len(log_w))


def normalized(log_w: Tensor) -> Tensor:
    """Self-normalized weights w_k / sum_j w_j of each datum: [K, B] to [K, B]."""
    return log_w.softmax(0)


def choose(log_w: Tensor, count: int = 1) -> Tensor:
    """Draw numbers of particles of each datum, independently and as often as they weigh: [K, B] to [count, B].

    NaN among log-weights stays for others to report: the numbers are then any.
    """
    heights = normalized(log_w.double()).cumsum(0).T.contiguous()  # [B, K]; float32 loses the light ones of many
    at = torch.rand(len(heights), count, dtype=heights.dtype, device=heights.device) * heights[:, -1:]
    return torch.searchsorted(heights, at, right=True).clamp(max=len(log_w) - 1).T


def reweighted(log_w: Tensor, values: Tensor) -> Tensor:
    """Self-normalized mean sum_k w~_k values_k of each datum: [K, B] twice to [B]; no gradient to log_w.

    With values log p*(x, tau) its gradient in p is that of the K-particle bound.
    """
    return (normalized(log_w.detach()) * values).sum(0)


def resampled(log_w: Tensor) -> tuple[Tensor, Tensor]:
    """The K-particle bound seen as one draw: draw K from q, keep number i with probability w~_i.

        log p*(x, tau_i) / (K w~_i q(tau_i | x)) = log (1/K) sum_k w_k   for every i

    so L_K is the bound of a joint over (tau_1..K, i), and therefore at most the ELBO of q_p^K, the
    marginal of tau_i. Without the K, as it is sometimes printed, the value is L_K + log K and no bound.

    Returns:
        log w~ [K, B], the log-probabilities of the index, and that log-ratio [K, B], nats.
    Source: Bachman and Precup, "Training deep generative models: variations on a theme" (2015); Cremer,
    Morris and Duvenaud, "Reinterpreting importance-weighted autoencoders" (2017),
    https://arxiv.org/abs/1704.02916
    """
    log_index = log_w.log_softmax(0)
    return log_index, log_w - log_index - math.log(len(log_w))


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) of x below 0, to full precision near 0 and far from it; its gradient too.

    Source: Mächler, "Accurately computing log(1 - exp(-|a|))" (2012),
    https://cran.r-project.org/web/packages/Rmpfr/vignettes/log1mexp-note.pdf
    """
    near = x > -math.log(2)
    # Each branch sees only what is harmless to it: a NaN in the other would reach the gradient.
    small, large = torch.where(near, x, -1.0), torch.where(near, -1.0, x)
    return torch.where(near, torch.log(-torch.expm1(small)), torch.log1p(-torch.exp(large)))


def effective_sample_size(log_w: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2 of each datum, between 1 and K: [K, B] to [B].

    Source: Kong, "A note on importance sampling using standardized weights" (1992).
    """
    return 1 / normalized(log_w.double()).square().sum(0)


def vimco_signal(log_w: Tensor) -> Tensor:
    """What each particle adds to the bound: L - L_{-i}, [K, B] to [K, B].

    L_{-i} is the bound with the i-th weight replaced by the geometric mean of the others, so it does
    not depend on particle i. Invariant to a shift of all log-weights of a datum.

    Raises:
        ValueError: if K = 1, where there are no others.
    Source: Mnih and Rezende, "Variational inference for Monte Carlo objectives" (2016),
    https://arxiv.org/abs/1602.06725
    """
    return log_mean_exp(log_w) - kernels.leave_one_out(log_w)


def arithmetic_signal(log_w: Tensor) -> Tensor:
    """What each particle adds to the bound of the others: L_K - L_{K-1} without it, [K, B] to [K, B].

    The i-th weight is replaced by the arithmetic mean of the others, which leaves the bound of those
    K - 1. Memory is linear in K: sums from the left and from the right, and no subtraction that cancels.

    Raises:
        ValueError: if K = 1, where there are no others.
    Source: Mnih and Rezende, "Variational inference for Monte Carlo objectives" (2016),
    https://arxiv.org/abs/1602.06725
    """
    if len(log_w) < 2:
        raise UsageError("arithmetic_signal compares particles, but num_particles is 1; use at least 2, or nvil")
    nothing = torch.full_like(log_w[:1], -math.inf)
    before = torch.cat([nothing, log_w[:-1].logcumsumexp(0)])  # [K, B]
    after = torch.cat([nothing, log_w[1:].flip(0).logcumsumexp(0)]).flip(0)
    return log_mean_exp(log_w) - torch.logaddexp(before, after) + math.log(len(log_w) - 1)


def renyi_bound(log_w: Tensor, alpha: float) -> Tensor:
    """The Renyi bound of order alpha of each datum: [K, B] to [B]; the K-particle bound at 0, the ELBO at 1.

    Source: Li and Turner, "Renyi divergence variational inference" (2016), https://arxiv.org/abs/1602.02311
    """
    return log_w.mean(0) if alpha == 1 else log_mean_exp((1 - alpha) * log_w) / (1 - alpha)


def renyi_signal(log_w: Tensor, alpha: float) -> Tensor:
    """What each particle adds to the Renyi bound, its weight replaced by the mean of the others: [K, B] to [K, B].

    As in `vimco_signal` the mean is geometric, and no signal depends on its own particle. For one particle, without
    others, it is the bound itself.
    """
    if (k := len(log_w)) == 1:
        return renyi_bound(log_w, alpha).unsqueeze(0)
    if alpha == 1:
        return (log_w - log_w.mean(0)) / (k - 1)
    return vimco_signal((1 - alpha) * log_w) / (1 - alpha)


@attrs.define(eq=False)  # not frozen: Dynamo cannot trace how a frozen one is made
class Layers:
    """What log-weights are made of, layer by layer, in nats.

    Args:
        log_p: of the datum given its lowest layer, and of each layer given the one above [L + 1, ...].
        log_q: of each layer given those drawn before it [L, ...].
    """

    log_p: Tensor
    log_q: Tensor

    @classmethod
    def of(cls, log_p: Tensor, log_q: Sequence[Tensor]) -> "Layers":
        """Of the terms of p and the pieces of q: all latents are one layer where these are not of the same layers.

        Where p knows of one term only, that is all there is: log_p and log_q [1, ...].
        """
        if len(log_q) != len(log_p) - 1:
            log_q = [sum(log_q[1:], log_q[0])]
            log_p = torch.stack([log_p[0], log_p[1:].sum(0)]) if len(log_p) > 1 else log_p
        return cls(log_p, torch.stack(list(log_q)))

    @property
    def log_weights(self) -> Tensor:
        """What each layer adds to the log-weights [L + 1, ...], the datum's own term first."""
        at = len(self.log_p) - len(self.log_q)
        return torch.cat([self.log_p[:at], self.log_p[at:] - self.log_q])
