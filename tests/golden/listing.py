"""Exact expectations over latents that can be listed."""

import math

import torch
from golden import tensor
from torch import Tensor

STEP = 0.05
"""Of the quadrature: the error falls as exp(-pi^2 / STEP)."""


def bits(count: int) -> Tensor:
    """Every state of so many bits, the first coordinate most significant [2^count, count]."""
    return torch.cartesian_prod(*[tensor([0.0, 1.0])] * count).view(-1, count)


def expectation(log_q: Tensor, values: Tensor) -> Tensor:
    """Mean of values [S, ...] over states of log-probability log_q [S, ...]: [...]."""
    return (log_q.exp() * values).sum(0)


def bound(log_q: Tensor, log_w: Tensor, k: int) -> Tensor:
    """L_K = E log (1/K) sum_k w_k, over K draws from states [S] of log-probability log_q and log-weight log_w: nats.

        E log sum_k w_k = integral of (exp(-t) - (E exp(-t w))^K) / t  over t > 0

    For any K, where K-tuples are too many to be listed. In log t the integrand falls off exponentially to both sides
    and is analytic, so that an even rule converges exponentially.
    """
    largest = log_w.max()
    low, high = -45.0, 5.0 + (largest - log_w.min()).item()  # of log t: where the integrand is nothing
    log_t = torch.arange(low, high, STEP, dtype=torch.float64)
    decay = torch.exp(-torch.exp(log_t + (log_w - largest).unsqueeze(1)))  # [S, T]
    mean = expectation(log_q.unsqueeze(1), decay)  # [T]
    integral = ((-log_t.exp()).exp() - mean**k).sum() * STEP
    return largest + integral - math.log(k)
