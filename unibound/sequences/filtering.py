"""Particles that go through a recurrent model step by step, resampled in between, and the bound that they give.

Shapes: T steps, K particles, B batch, *X one datum, Z latents of one step, S numbers of a state. Everything is in nats.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from unibound.draws import draw
from unibound.sequences.recurrent import RecurrentGeneration, RecurrentInference
from unibound.weights import log_mean_exp


def resample(log_w: Tensor) -> Tensor:
    """Numbers of particles [K, B], drawn independently in proportion to the weights of log-weights [K, B]."""
    return torch.multinomial(log_w.softmax(0).T, len(log_w), replacement=True).T


def _keep(values: Tensor, chosen: Tensor) -> Tensor:
    """Those of values [K, B, S] whose numbers [K, B] were chosen."""
    return values.gather(0, chosen.unsqueeze(-1).expand_as(values))


def filtering_bound(
    q: RecurrentInference, p: RecurrentGeneration, x: Tensor, k: int, choose: Callable[[Tensor], Tensor] = resample
) -> Tensor:
    """A lower bound on log p(x) by K particles that are resampled between steps: x [B, *X] to [B] nats.

        sum_t log (1/K) sum_k w_t^k,   w_t = p(x_t, z_t | x_<t, z_<t) / q(z_t | x, z_<t)

    Its exponential is an unbiased estimate of p(x). Gradients through it leave out those of the resampling.

    Args:
        q: draws latents.
        p: what they are weighed by.
        x: data [B, *X].
        k: number of particles K.
        choose: maps log-weights [K, B] to numbers of particles [K, B], each in proportion to its weight.

    Source: Maddison et al., "Filtering variational objectives" (2017), https://arxiv.org/abs/1705.09279
    """
    state, z, memory = p.recurrence.start(torch.Size([k, len(x)])), None, None
    total = state.new_zeros(len(x))
    for t in range(p.recurrence.steps):
        memory = q.follower.look(memory, z, state, x, t)
        z, log_q = (one.squeeze(0) for one in draw(q.step(state, x, memory, t), 1))
        log_x, log_z, state = p.step(state, x, z, t)
        log_w = log_x + log_z - log_q  # [K, B]
        total = total + log_mean_exp(log_w)
        if t + 1 < p.recurrence.steps:
            chosen = choose(log_w.detach())  # [K, B]
            state, z = _keep(state, chosen), _keep(z, chosen)
            memory = None if memory is None else _keep(memory, chosen)
    return total
