"""Particles that go through a recurrent model step by step, resampled in between, and the bound that they give.

Shapes: T steps, K particles, B batch, *X one datum, Z latents of one step, S numbers of a state. Everything is in nats.
"""

import math
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from unibound.draws import draw
from unibound.sequences.recurrent import RecurrentGeneration, RecurrentInference


def resample(log_w: Tensor) -> Tensor:
    """Numbers of particles [K, B], drawn independently in proportion to the weights of log-weights [K, B]."""
    return torch.multinomial(log_w.softmax(0).T, len(log_w), replacement=True).T


@attrs.frozen(eq=False)
class Filtered:
    """K particles that went through T steps, resampled between them.

    Args:
        log_weights: log w_t of each step [T, K, B], nats.
        log_q: log q(z_t | x, z_<t) of each draw [T, K, B], nats.
        log_choice: log-probability of each particle that was kept after a step, given all [T - 1, K, B], nats.
    """

    log_weights: Tensor
    log_q: Tensor
    log_choice: Tensor

    @property
    def bounds(self) -> Tensor:
        """What each step adds to the bound [T, B], nats."""
        return self.log_weights.logsumexp(1) - math.log(self.log_weights.shape[1])


def filtered(
    q: RecurrentInference,
    p: RecurrentGeneration,
    x: Tensor,
    k: int,
    choose: Callable[[Tensor], Tensor] = resample,
    *,
    reparameterized: bool = False,
) -> Filtered:
    """Send K particles through a recurrent model, and keep after each step those that are drawn by their weights.

    Args:
        q: draws latents.
        p: what they are weighed by.
        x: data [B, *X].
        k: number of particles K.
        choose: maps log-weights [K, B] to numbers of particles [K, B], each in proportion to its weight.
        reparameterized: let gradients flow through the draws; otherwise they are detached.
    """
    state, z, memory = p.recurrence.start(torch.Size([k, len(x)])), None, None
    weights, scores, choices = [], [], []
    for t in range(p.recurrence.steps):
        memory = q.follower.look(memory, z, state, x, t)
        z, log_q = (one.squeeze(0) for one in draw(q.step(state, x, memory, t), 1, reparameterized=reparameterized))
        log_x, log_z, state = p.step(state, x, z, t)
        weights.append(log_x + log_z - log_q)  # [K, B]
        scores.append(log_q)
        if t + 1 < p.recurrence.steps:
            chosen = choose(weights[-1].detach())  # [K, B]
            choices.append(weights[-1].log_softmax(0).gather(0, chosen))
            state, z, memory = (None if one is None else _keep(one, chosen) for one in (state, z, memory))
            assert state is not None
    none = weights[0].new_zeros(0, k, len(x))
    return Filtered(torch.stack(weights), torch.stack(scores), torch.stack(choices) if choices else none)


def _keep(values: Tensor, chosen: Tensor) -> Tensor:
    """Those of values [K, B, S] whose numbers [K, B] were chosen."""
    return values.gather(0, chosen.unsqueeze(-1).expand_as(values))


def filtering_bound(
    q: RecurrentInference, p: RecurrentGeneration, x: Tensor, k: int, choose: Callable[[Tensor], Tensor] = resample
) -> Tensor:
    """A lower bound on log p(x) by K particles that are resampled between steps: x [B, *X] to [B] nats.

        sum_t log (1/K) sum_k w_t^k,   w_t = p(x_t, z_t | x_<t, z_<t) / q(z_t | x, z_<t)

    Its exponential is an unbiased estimate of p(x). Gradients through it leave out those of the resampling.
    Arguments are those of `filtered`.

    Source: Maddison et al., "Filtering variational objectives" (2017), https://arxiv.org/abs/1705.09279
    """
    return filtered(q, p, x, k, choose).bounds.sum(0)
