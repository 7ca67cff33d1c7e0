"""Looks at data and model that need no chains, or few."""

import copy
import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from unibound.distributions import pairwise_log_prob
from unibound.energies.energy import EnergyPrior
from unibound.generation import Generation
from unibound.support import is_discrete

CSL_STATES, CSL_STEPS, CSL_CASES = 20_000, 10, 2000
"""States of the sampling-based likelihood, Gibbs steps between those of one chain, and data it is taken of."""
MET = 2000
"""Data whose mass is held against log Z."""


def log_base_rate(train: Tensor, test: Tensor) -> Tensor | None:
    """log-probability [N] of test bits under independent bits with the rates of `train`; None unless all are bits.

    Where the two are the same data each datum is judged by the rates of the others: rates that have seen it would be
    better than any model for as few data as there are.
    """
    if not torch.equal(train * train, train) or not torch.equal(test * test, test):
        return None
    test, train = (x.flatten(1).double() for x in (test, train))
    ones, count = train.sum(0).expand_as(test), torch.tensor(len(train), dtype=torch.float64)  # [N, D]
    if torch.equal(train, test):
        ones, count = ones - test, count - 1
    logit = ((ones + 1) / (count + 2)).logit()
    return (test * logit - softplus(logit)).sum(1)


@torch.no_grad()
def free_energies(prior: EnergyPrior, tau: Tensor) -> Tensor:
    """F(tau) of tau [N, *Z]: [N] nats, float64, a thousand at a time."""
    return torch.cat([prior.free_energy(part.to(prior.chains)).double() for part in tau.split(1000)])


@torch.no_grad()
def log_mass_met(prior: EnergyPrior, *states: Tensor) -> float | None:
    """log of the sum of exp(-F) over the distinct states among these, each [N, *Z]: at most log Z, and no estimate.

    None where the model is over reals, and a state has no mass.
    """
    if not is_discrete(prior.support):
        return None
    distinct = torch.cat([each.to(prior.chains).flatten(1) for each in states]).unique(dim=0)
    wide = copy.deepcopy(prior).double()
    return (-free_energies(wide, distinct.view(-1, *prior.state_shape))).logsumexp(0).item()


@torch.no_grad()
def conservative(prior: EnergyPrior, tau: Tensor, x: Tensor, p: Generation | None = None) -> Tensor | None:
    """Conservative sampling-based log-likelihood of x [N, *X]: [N] nats; None where the prior cannot tell.

        log (1/S) sum_s p(x | h_s),   h_1 .. h_S drawn from a Gibbs chain

    It errs low of the distribution of the chain, and so of p once the chain has mixed; by how much depends on S.

    Args:
        prior: whose chain is run.
        tau: where it begins [M, *Z]; not at x, which it must not have seen.
        x: data.
        p: if x is not the latent itself, the model that gives p(x | tau).

    Source: Bengio and Yao, "Bounding the test log-likelihood of generative models" (2013),
    https://arxiv.org/abs/1311.6184
    """
    total = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
    count = 0
    for _ in range(-(-CSL_STATES // len(tau))):
        tau = prior.move(tau, CSL_STEPS)
        if p is None:
            log_p = prior.log_reach(tau, x)  # [S, N]
            if log_p is None:
                return None
        else:
            conditional = p.conditional(p.complete(tau))
            log_p = torch.cat([pairwise_log_prob(conditional, part).mT for part in x.split(100)], 1)
        total = torch.logaddexp(total, log_p.double().logsumexp(0))
        count += len(tau)
    return total - math.log(count)
