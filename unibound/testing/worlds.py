"""Worlds so small that every latent can be listed, and everything about them known exactly.

All are in float64 and none has a symmetry that could hide a wrong sign: no two logits are equal, no
weight is zero, data are weighed unevenly, and the numbers of pixels, latents and particles differ.
"""

import copy
import math
from collections.abc import Callable, Mapping
from typing import ClassVar, TypeVar, cast

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from unibound.distributions import Bits
from unibound.joint import Directed, EnergyPrior, Generator, Inference, JointBound, Prior
from unibound.weights import log_mean_exp

M = TypeVar("M", bound=nn.Module)
Nodes = Callable[[Distribution], tuple[Tensor, Tensor]]


def all_bits(shape: tuple[int, ...]) -> Tensor:
    """Every state of bits of a given shape: [2^n, *shape], float64."""
    size = math.prod(shape)
    index = torch.arange(1 << size).unsqueeze(1)
    return (index >> torch.arange(size) & 1).double().view(-1, *shape)


def tuples(count: int, k: int) -> Tensor:
    """Every k-tuple of the numbers below `count`: [count^k, k]."""
    return torch.stack([torch.arange(count**k) // count**i % count for i in range(k)], 1)


def scatter(module: M, seed: int, scale: float = 0.8) -> M:
    """Give every parameter a random value of its own, in float64; returns the module."""
    random = torch.Generator().manual_seed(seed)
    for parameter in module.double().parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=random, dtype=torch.float64)
    return module


class Rates(Prior):
    """Independent bits, each with a logit of its own: a normalized prior."""

    posterior: ClassVar[str] = "bernoulli"

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape)
        self.logits = nn.Parameter(torch.zeros(event_shape))

    def log_prob(self, tau: Tensor) -> Tensor:
        return Bits(self.logits, len(self.event_shape)).log_prob(tau)

    def sample(self, count: int) -> Tensor:
        return Bits(self.logits, len(self.event_shape)).sample((count,))


class Table(EnergyPrior):
    """Bits with an energy for every state, annealed from independent bits: an unnormalized prior."""

    posterior: ClassVar[str] = "bernoulli"

    def __init__(self, event_shape: tuple[int, ...], *, num_chains: int = 5, steps: int = 1) -> None:
        super().__init__(torch.randint(2, (num_chains, *event_shape)).to(torch.get_default_dtype()), steps)
        size = math.prod(event_shape)
        self.energies = nn.Parameter(torch.zeros(1 << size))
        self.register_buffer("base_bias", torch.linspace(-0.6, 0.9, size))

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        v = tau.flatten(-len(self.event_shape))  # [..., V]
        index = (v.long() << torch.arange(v.shape[-1])).sum(-1)
        return beta * self.energies[index] - (1 - beta) * (v @ self.base_bias)

    @torch.no_grad()
    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        # One step redraws one random bit, which is reversible and mixes badly enough to be a test.
        v = tau.flatten(1).clone()
        for _ in range(steps):
            site = torch.randint(v.shape[1], (len(v), 1))
            on, off = (v.scatter(1, site, bit).view_as(tau) for bit in (1.0, 0.0))
            rate = (self.free_energy(off, beta) - self.free_energy(on, beta)).sigmoid()
            v.scatter_(1, site, (torch.rand_like(rate) < rate).to(v.dtype).unsqueeze(1))
        return v.view_as(tau)

    def base_sample(self, count: int) -> Tensor:
        return Bits(self.base_bias).sample((count,)).view(count, *self.event_shape)

    def base_log_z(self) -> float:
        return nn.functional.softplus(self.base_bias.double()).sum().item()

    def fit_base(self, tau: Tensor) -> None:
        rate = (tau.flatten(1).double().sum(0) + 1) / (len(tau) + 2)
        self.base_bias.copy_(rate.logit())


class Bell(Prior):
    """Independent normals with learned means and scales: a prior over reals."""

    posterior: ClassVar[str] = "gaussian"

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape)
        self.mean = nn.Parameter(torch.zeros(event_shape))
        self.log_scale = nn.Parameter(torch.zeros(event_shape))

    def distribution(self) -> Distribution:
        return Independent(Normal(self.mean, self.log_scale.exp()), len(self.event_shape))

    def log_prob(self, tau: Tensor) -> Tensor:
        return self.distribution().log_prob(tau)

    def sample(self, count: int) -> Tensor:
        return self.distribution().sample((count,))


class Perceptron(nn.Sequential):
    """Two linear layers with a bend between them, so that no gradient is linear in a weight."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__(nn.Linear(fan_in, 4), nn.Tanh(), nn.Linear(4, fan_out))


class BitInference(Inference):
    """q(tau | x) over independent bits."""

    def __init__(self, x_size: int, tau_size: int) -> None:
        super().__init__()
        self.network = Perceptron(x_size, tau_size)

    def forward(self, x: Tensor) -> Distribution:
        return Bits(self.network(x))


class BitGenerator(Generator):
    """p(x | tau) over independent bits."""

    def __init__(self, tau_size: int, x_size: int) -> None:
        super().__init__()
        self.network = Perceptron(tau_size, x_size)

    def forward(self, tau: Tensor) -> Distribution:
        return Bits(self.network(tau))


class LinearInference(Inference):
    """q(tau | x) normal, its mean linear in x."""

    def __init__(self, x_size: int, tau_size: int) -> None:
        super().__init__()
        self.mean = nn.Linear(x_size, tau_size)
        self.log_scale = nn.Parameter(torch.zeros(tau_size))

    def forward(self, x: Tensor) -> Distribution:
        mean = self.mean(x)
        return Independent(Normal(mean, self.log_scale.exp().expand_as(mean)), 1)


class LinearGenerator(Generator):
    """p(x | tau) normal, its mean linear in tau: with a normal prior, p(x) is known in closed form."""

    def __init__(self, tau_size: int, x_size: int) -> None:
        super().__init__()
        self.mean = nn.Linear(tau_size, x_size)
        self.log_scale = nn.Parameter(torch.zeros(x_size))

    def forward(self, tau: Tensor) -> Distribution:
        mean = self.mean(tau)
        return Independent(Normal(mean, self.log_scale.exp().expand_as(mean)), 1)


@attrs.frozen(eq=False)
class World:
    """A joint bound with all there is to know about it.

    Args:
        joint: q and p.
        xs: every datum [N, *X].
        log_data: log D(x) [N], nats.
        taus: every latent [S, *Z]; for reals a grid so fine and wide that sums are integrals.
        log_measure: log of what each latent counts for in a sum [S]; zero for bits.
        nodes: maps q(tau | x) of batch shape [B] to draws that stand for it, [Q, B, *Z], and the log of
            their probabilities [Q, B].
        closed: whether p(x) is zero outside of `xs`, so that dreams can be listed too.
    """

    joint: JointBound
    xs: Tensor
    log_data: Tensor
    taus: Tensor
    log_measure: Tensor
    nodes: Nodes
    closed: bool

    @classmethod
    def of_bits(cls, seed: int = 0, prior: Prior | None = None) -> "World":
        """Three pixels and two latent bits under any prior over bits of shape [2].

        Its parameters are scattered; a prior left out is `Rates`.
        """
        joint = JointBound(BitInference(3, 2), Directed(prior or Rates((2,)), BitGenerator(2, 3)))
        xs, taus = all_bits((3,)), all_bits((2,))

        def nodes(posterior: Distribution) -> tuple[Tensor, Tensor]:
            tau = taus.to(posterior.mean.dtype).unsqueeze(1).expand(-1, *posterior.batch_shape, -1)
            return tau, posterior.log_prob(tau)

        return cls(scatter(joint, seed), xs, uneven(len(xs), seed), taus, torch.zeros(4).double(), nodes, True)

    @classmethod
    def of_reals(cls, seed: int = 0, prior: Prior | None = None, num_nodes: int = 24) -> "World":
        """A linear-Gaussian world: two pixels and one latent, under any prior over reals of shape [1].

        Draws are Gauss-Hermite nodes through which gradients flow, as they do through `rsample`.
        """
        joint = JointBound(LinearInference(2, 1), Directed(prior or Bell((1,)), LinearGenerator(1, 2)))
        xs = 1.3 * torch.randn(4, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        taus = torch.linspace(-30, 30, 6001, dtype=torch.float64).unsqueeze(1)
        abscissas, weights = (torch.from_numpy(array) for array in np.polynomial.hermite_e.hermegauss(num_nodes))

        def nodes(posterior: Distribution) -> tuple[Tensor, Tensor]:
            mean = posterior.mean  # [B, 1]
            tau = mean + posterior.stddev * abscissas.to(mean.dtype).view(-1, 1, 1)
            log_prob = (weights / weights.sum()).log().to(mean.dtype)
            return tau, log_prob.unsqueeze(1).expand(-1, len(mean))

        measure = torch.full((len(taus),), math.log(60 / 6000)).double()
        return cls(scatter(joint, seed, 0.4), xs, uneven(len(xs), seed), taus, measure, nodes, False)

    def to(self, dtype: torch.dtype) -> "World":
        """A copy in another precision."""
        tensors = {name: getattr(self, name).to(dtype) for name in ("xs", "log_data", "taus", "log_measure")}
        return attrs.evolve(self, joint=copy.deepcopy(self.joint).to(dtype), **tensors)

    @property
    def p(self) -> Directed:
        """The generative model, which in a world is always a prior and a generator."""
        return cast(Directed, self.joint.p)

    def log_z(self) -> Tensor:
        """log of what p* exceeds p by, a scalar in nats, differentiable."""
        prior = self.joint.p.unnormalized
        if prior is None:
            return self.log_data.new_zeros(())
        return (prior.log_prob(self.taus) + self.log_measure).logsumexp(0)

    def log_joint(self, tau: Tensor) -> Tensor:
        """log p(x, tau) of every datum, normalized and differentiable: tau [..., N, *Z] to [..., N] nats."""
        # Whatever log_prob takes for the gradient of log Z cancels here, and the exact one takes its place.
        return self.joint.p.log_joint(self.xs, tau) - self.log_z()

    def log_prob(self) -> Tensor:
        """log p(x) of every datum [N], nats, differentiable."""
        tau = self.taus.unsqueeze(1).expand(-1, len(self.xs), *self.taus.shape[1:])  # [S, N, *Z]
        return (self.log_joint(tau) + self.log_measure.unsqueeze(1)).logsumexp(0)

    def log_posterior(self) -> Tensor:
        """log p(tau | x) of every latent and datum [S, N], nats."""
        tau = self.taus.unsqueeze(1).expand(-1, len(self.xs), *self.taus.shape[1:])
        return self.log_joint(tau) - self.log_prob()

    def bound(self, k: int) -> Tensor:
        """L_K of every datum [N], nats: the K-particle bound by listing all K-tuples, differentiable."""
        posterior = self.joint.q(self.xs)
        tau, log_prob = self.nodes(posterior)  # [Q, N, *Z], [Q, N]
        log_w = self.log_joint(tau) - posterior.log_prob(tau)  # [Q, N]
        index = tuples(len(tau), k).T  # [K, Q^K]
        return (log_prob[index].sum(0).exp() * log_mean_exp(log_w[index])).sum(0)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by group, without the groups that have none."""
        return parameter_groups(self.joint.parts())

    def gradient(self, values: Tensor) -> dict[str, Tensor]:
        """Gradient of E_D[values], for values [N], with respect to each group, flattened."""
        return gradients((self.log_data.exp() * values).sum(), self.groups())


def uneven(count: int, seed: int) -> Tensor:
    """Log-probabilities [count], no two alike, float64."""
    return torch.randn(count, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64).log_softmax(0)


def parameter_groups(parts: Mapping[str, nn.Module]) -> dict[str, list[nn.Parameter]]:
    """Parameters of each part, without the parts that have none."""
    listed = {name: list(part.parameters()) for name, part in parts.items()}
    return {name: parameters for name, parameters in listed.items() if parameters}


def gradients(value: Tensor, groups: Mapping[str, list[nn.Parameter]]) -> dict[str, Tensor]:
    """Gradient of a scalar with respect to each group, flattened; zero where it does not depend on it."""
    flat = [parameter for parameters in groups.values() for parameter in parameters]
    grads = iter(torch.autograd.grad(value, flat, retain_graph=True, allow_unused=True, materialize_grads=True))
    return {
        name: torch.cat([next(grads).flatten() for _ in parameters]) for name, parameters in groups.items()
    }
