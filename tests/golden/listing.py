"""Exact expectations over latents that can be listed."""

import math
from collections.abc import Iterator

import torch
from golden import tensor
from torch import Tensor, nn

from unibound import Estimate, Estimator, JointBound, Particles
from unibound.testing import World

STEP = 0.05
"""Of the quadrature: the error falls as exp(-pi^2 / STEP)."""

TUPLES_AT_ONCE = 1 << 16
"""Tuples of particles held in memory."""


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


def renyi(log_q: Tensor, log_w: Tensor, alpha: float) -> Tensor:
    """log E_q w^(1 - alpha) / (1 - alpha) over states [S, ...], which at alpha = 1 is E_q log w: [...] nats."""
    if alpha == 1:
        return expectation(log_q, log_w)
    return (log_q + (1 - alpha) * log_w).logsumexp(0) / (1 - alpha)


def world_of(joint: JointBound, xs: Tensor, num_latents: int) -> World:
    """All there is to know about a joint over bits, for data xs [N, X] of equal weight."""
    taus = bits(num_latents)
    return World(joint, xs, torch.zeros(len(xs)).double().log_softmax(0), taus, torch.zeros(len(taus)).double(), None)


class Chosen(JointBound):
    """A joint whose particles are latents of our choice [K, B, Z]."""

    def __init__(self, joint: JointBound, tau: Tensor) -> None:
        super().__init__(joint.q, joint.p)
        self.tau = tau

    def particles(self, x: Tensor, k: int, **_: bool) -> Particles:
        return Particles(self.tau, self.q(x).log_prob(self.tau), self.p.log_joint(x, self.tau))


def rehearse(world: World, estimator: Estimator) -> Iterator[tuple[Tensor, Estimate]]:
    """What an estimator says for the one datum of a world and each tuple of particles [B], and how probable that is."""
    baseline = estimator.auxiliary(world.joint, world.xs)
    states = torch.arange(len(world.taus))
    tuples = torch.cartesian_prod(*[states] * estimator.num_particles).view(-1, estimator.num_particles)
    for index in tuples.split(TUPLES_AT_ONCE):  # [B, K]
        joint, x = Chosen(world.joint, world.taus[index.T]), world.xs.expand(len(index), -1)
        joint.auxiliary = None if baseline is None else baseline.double().eval()  # in training it would change
        yield joint.particles(x, index.shape[1]).log_q.detach().sum(0).exp(), estimator(joint, x)


def expected_bound(world: World, estimator: Estimator) -> Tensor:
    """E[bound] of the one datum, exactly, in nats."""
    return sum((share @ estimate.bound for share, estimate in rehearse(world, estimator)), tensor(0.0))


def expected_gradient(world: World, estimator: Estimator, parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Expected direction of ascent for the one datum, exactly, by name of the parameter."""
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for share, estimate in rehearse(world, estimator):
        for name, slope in gradients(-share @ estimate.surrogate, parameters).items():
            total[name] += slope
    return total


def gradients(value: Tensor, parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Gradient of a scalar by name of the parameter; zero where it does not depend on it."""
    slopes = torch.autograd.grad(value, list(parameters.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(parameters, slopes, strict=True))
