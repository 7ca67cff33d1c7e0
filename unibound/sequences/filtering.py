"""Particles that go through a recurrent model step by step, resampled in between, and the bound that they give.

Shapes: T steps, K particles, B batch, *X one datum, Z latents of one step, S numbers of a state. Everything is in nats.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from unibound import weights
from unibound.draws import draw
from unibound.sequences.recurrent import RecurrentGeneration, RecurrentInference


def _keep(values: Tensor, chosen: Tensor) -> Tensor:
    """Those of values [K, B, S] whose numbers [K, B] were chosen."""
    return values.gather(0, chosen.unsqueeze(-1).expand_as(values))


def filtering_bound(
    q: RecurrentInference,
    p: RecurrentGeneration,
    x: Tensor,
    k: int,
    choose: Callable[[Tensor, int], Tensor] = weights.choose,
    *,
    threshold: float = 1.0,
    reparameterized: bool = False,
) -> Tensor:
    """A lower bound on log p(x) by K particles that are resampled between steps: x [B, *X] to [B] nats.

        sum_t log (1/K) sum_k w_t^k,   w_t = p(x_t, z_t | x_<t, z_<t) / q(z_t | x, z_<t)

    Its exponential is an unbiased estimate of p(x). Gradients through it leave out those of the resampling. Where a
    datum's particles go on as they are, they keep their weights, whose product over steps is then averaged; if they
    always do, this is the K-particle bound of whole sequences.

    Args:
        q: draws latents.
        p: what they are weighed by.
        x: data [B, *X].
        k: number of particles K.
        choose: draws so many particles of each datum by log-weights [K, B]: their numbers [count, B].
        threshold: a datum's particles are resampled where their effective sample size is below this share of K.
        reparameterized: let gradients flow through the draws.
    Raises:
        UsageError: reparameterized draws of a q that has none.

    Source: Maddison et al., "Filtering variational objectives" (2017), https://arxiv.org/abs/1705.09279
    """
    state, z, memory = p.recurrence.start(torch.Size([k, len(x)])), None, None
    log_w = state.new_zeros(k, len(x))  # since the last resampling
    total, same = state.new_zeros(len(x)), torch.arange(k, device=x.device).unsqueeze(1)
    resampling = k > 1 and threshold > 0
    for t in range(p.recurrence.steps):
        memory = q.follower.look(memory, z, state, x, t)
        z, log_q = (one.squeeze(0) for one in draw(q.step(state, x, memory, t), 1, reparameterized=reparameterized))
        log_x, log_z = p.step(state, x, z, t)
        log_w = log_w + log_x + log_z - log_q  # [K, B]
        if t + 1 == p.recurrence.steps:
            break
        state = p.recurrence.after(state, z, x, t)
        if resampling:
            uneven = weights.effective_sample_size(log_w.detach()) < threshold * k  # [B]
            chosen = torch.where(uneven, choose(log_w.detach(), k), same)  # [K, B]
            state, z = _keep(state, chosen), _keep(z, chosen)
            memory = None if memory is None else _keep(memory, chosen)
            total = total + torch.where(uneven, weights.log_mean_exp(log_w), 0.0)
            log_w = torch.where(uneven, 0.0, log_w)
    return total + weights.log_mean_exp(log_w)
