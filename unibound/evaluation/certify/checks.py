"""Quick looks at data and model that need no chains, or few: do these pixels belong to this model at all?"""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from unibound.distributions import pairwise_log_prob
from unibound.energy import EnergyPrior
from unibound.generation import Generation

CSL_STATES, CSL_STEPS, CSL_CASES = 20_000, 10, 2000
"""States of the sampling-based likelihood, Gibbs steps between those of one chain, and data it is taken of."""


def log_base_rate(train: Tensor, test: Tensor) -> Tensor | None:
    """log-probability [N] of test bits under independent bits with the rates of `train`; None unless all are bits."""
    if not torch.equal(train * train, train) or not torch.equal(test * test, test):
        return None
    rate = (train.flatten(1).double().sum(0) + 1) / (len(train) + 2)  # [D]
    logit = rate.logit()
    return test.flatten(1).double() @ logit - softplus(logit).sum()


def misread(prior: EnergyPrior, x: Tensor, image: tuple[int, ...]) -> str | None:
    """Say what was done to the pixels, if undoing it makes the data clearly likelier; None otherwise.

    A difference of free energies is one of log-likelihoods, so log Z is not needed. Nothing that was trained
    on images prefers them transposed, or with ink and paper exchanged.

    Args:
        prior: a model of the data, over bits.
        x: data [N, *Z].
        image: shape of an image, of which a latent is the row-major list.
    """
    log_p = free_energies(prior, x).neg()
    undone = {"inverted": 1 - x}
    if len(image) == 2 and min(image) > 1:
        undone["transposed"] = x.reshape(len(x), *reversed(image)).mT.reshape(x.shape)
        if image[0] == image[1]:
            undone["transposed and inverted"] = 1 - undone["transposed"]
    gains = {name: free_energies(prior, other).neg() - log_p for name, other in undone.items()}  # each [N]
    name, gain = max(gains.items(), key=lambda item: item[1].mean().item())
    stderr = gain.std().item() / math.sqrt(len(gain)) if len(gain) > 1 else 0.0
    if gain.mean().item() <= max(1.0, 5 * stderr):
        return None
    return (
        f"{name} pixels: with that undone, the mean log-likelihood of the data is {gain.mean().item():.1f} nats "
        "higher, whatever log Z"
    )


def image_shape(x: Tensor) -> tuple[int, ...]:
    """The shape of one image of x [N, *X]: as it is, or square if it is flat and could be."""
    shape = tuple(x.shape[1:])
    side = math.isqrt(shape[0]) if len(shape) == 1 else 0
    return (side, side) if side > 1 and side * side == shape[0] else shape


@torch.no_grad()
def free_energies(prior: EnergyPrior, tau: Tensor) -> Tensor:
    """F(tau) of tau [N, *Z]: [N] nats, float64, a thousand at a time."""
    return torch.cat([prior.free_energy(part.to(prior.chains)).double() for part in tau.split(1000)])


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
