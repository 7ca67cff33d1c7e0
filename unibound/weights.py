"""Pure functions on log-weights [K, B]: K particles of each of B data. Values are in nats."""

import math

import torch
from torch import Tensor

from unibound import kernels


def log_mean_exp(log_w: Tensor) -> Tensor:
    """The K-particle bound log (1/K) sum_k w_k of each datum: [K, B] to [B]."""
    return log_w.logsumexp(0) - math.log(len(log_w))


def normalized(log_w: Tensor) -> Tensor:
    """Self-normalized weights w_k / sum_j w_j of each datum: [K, B] to [K, B]."""
    return log_w.softmax(0)


def effective_sample_size(log_w: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2 of each datum, between 1 and K: [K, B] to [B].

    Source: Kong, "A note on importance sampling using standardized weights" (1992).
    """
    log_w = log_w.double()
    return torch.exp(2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0))


def vimco_signal(log_w: Tensor) -> Tensor:
    """What each particle adds to the bound: L - L_{-i}, [K, B] to [K, B].

    L_{-i} is the bound with the i-th weight replaced by the geometric mean of the others, so it does
    not depend on particle i. Invariant to a shift of all log-weights of a datum.

    Raises:
        UsageError: if K = 1, where there are no others.
    Source: Mnih and Rezende, "Variational inference for Monte Carlo objectives" (2016),
    https://arxiv.org/abs/1602.06725
    """
    return log_mean_exp(log_w) - kernels.leave_one_out(log_w)
