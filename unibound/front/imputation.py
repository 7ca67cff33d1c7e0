"""What a model expects of elements that are missing, given those that are not."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributions import Distribution

from unibound.draws import Drawn, draw
from unibound.errors import UsageError
from unibound.joint import JointBound

DRAWS = 100
"""Draws behind a mean that a distribution does not know itself."""


@torch.no_grad()
def impute(joint: JointBound, x: Tensor, missing: Tensor, steps: int) -> Tensor:
    """x with its missing elements replaced by their mean under p given the others: [B, *X].

    A Markov chain for each datum leaves p(tau, x_missing | x_observed) invariant: tau is proposed by q, and taken with
    the ratio of the importance weights, then the missing elements are drawn from p(x | tau). The mean is over the
    chain's second half.

    Args:
        joint: q and p.
        x: data [B, *X]; what stands where elements are missing does not matter.
        missing: true where they are [B, *X].
        steps: of the chain.

    Raises:
        UsageError: a p whose elements are not independent given tau.

    Source: P.-A. Mattei and J. Frellsen (2018), Leveraging the exact likelihood of deep latent variable models,
        https://arxiv.org/abs/1802.04826, section 3.2.
    """
    with joint.evaluating():
        total, count = torch.zeros_like(x), 0
        x = torch.where(missing, joint.p.dream(len(x))[0].to(x), x)
        tau = draw(joint.q(x), 1)[0]  # [1, B, *Z]
        for step in range(steps):
            posterior = joint.q(x)
            proposed, log_q = draw(posterior, 1)
            log_old = joint.p.log_joint(x, tau) - posterior.log_prob(tau)  # [1, B]
            taken = joint.p.log_joint(x, proposed) - log_q - log_old >= torch.rand_like(log_q).log()
            tau = torch.where(taken.view(1, -1, *[1] * (tau.dim() - 2)), proposed, tau)
            given = joint.p.conditional(tau.squeeze(0))
            if isinstance(given, Drawn):
                who = type(given).__name__
                raise UsageError(f"elements of {who} depend on each other given tau, but impute needs them independent")
            x = torch.where(missing, given.sample(), x)
            if 2 * step >= steps - 1:
                total, count = total + torch.where(missing, mean(given), x), count + 1
        return total / count


def mean(made: Distribution) -> Tensor:
    """The mean of a distribution; of many draws, where it does not know it."""
    try:
        return made.mean
    except NotImplementedError:
        return draw(made, DRAWS)[0].mean(0)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Random numbers of a seed's own, which leave no trace; torch's, without a seed."""
    with torch.random.fork_rng(enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        yield
