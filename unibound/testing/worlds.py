"""Worlds so small that every latent can be listed, and everything about them known exactly.

All are in float64 and none has a symmetry that could hide a wrong sign: no two logits are equal, no
weight is zero, data are weighed unevenly, and the numbers of pixels, latents and particles differ.
"""

import copy
import math
from collections.abc import Callable, Mapping
from typing import ClassVar, TypeVar, cast

import attrs
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import one_hot

from unibound.distributions import Bits
from unibound.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.generation import Directed
from unibound.joint import JointBound
from unibound.prior import Prior
from unibound.testing.networks import BitGenerator, BitInference, LinearGenerator, LinearInference
from unibound.weights import log_mean_exp

M = TypeVar("M", bound=nn.Module)
Nodes = Callable[[Distribution], tuple[Tensor, Tensor]]


def all_bits(shape: tuple[int, ...]) -> Tensor:
    """Every state of bits of a given shape: [2^n, *shape], float64."""
    size = math.prod(shape)
    index = torch.arange(1 << size).unsqueeze(1)
    return (index >> torch.arange(size) & 1).double().view(-1, *shape)


def number(v: Tensor) -> Tensor:
    """Number of each state of bits [..., V] among all: [...]."""
    return (v.long() << torch.arange(v.shape[-1])).sum(-1)


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
    base_bias: Tensor

    def __init__(self, event_shape: tuple[int, ...], *, num_chains: int = 5, steps: int = 1) -> None:
        super().__init__(torch.randint(2, (num_chains, *event_shape)).to(torch.get_default_dtype()), steps)
        size = math.prod(event_shape)
        self.energies = nn.Parameter(torch.zeros(1 << size))
        self.register_buffer("base_bias", torch.linspace(-0.6, 0.9, size))

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        v = tau.flatten(-len(self.event_shape))  # [..., V]
        return beta * self.energies[number(v)] - (1 - beta) * (v @ self.base_bias)

    def _redraws(self, beta: float = 1.0) -> list[tuple[int, Tensor]]:
        """The bits that a step redraws one after another, forth and back, and the rate of each from every state."""
        free = self.free_energy(all_bits(tuple(self.event_shape)).to(self.energies), beta)  # [S]
        states, size = torch.arange(len(free)), len(free).bit_length() - 1
        rates = [(free[states & ~(1 << site)] - free[states | 1 << site]).sigmoid() for site in range(size)]
        return [(1 << site, rates[site]) for site in (*range(size), *reversed(range(size)))]  # so it is reversible

    @torch.no_grad()
    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        redraws, state = self._redraws(beta), number(tau.flatten(1))
        for bit, rate in redraws * steps:
            state = torch.where(torch.rand(len(state)) < rate[state], state | bit, state & ~bit)
        return all_bits(tuple(self.event_shape)).to(tau)[state]

    def log_transition(self, states: Tensor) -> Tensor:
        every = torch.arange(len(self.energies))
        total = torch.eye(len(every)).to(self.energies)
        for bit, rate in self._redraws():
            on, off = one_hot(every | bit, len(every)), one_hot(every & ~bit, len(every))  # [S, S]
            total = total @ (rate.unsqueeze(1) * on + (1 - rate).unsqueeze(1) * off)
        index = number(states.flatten(1))
        return total[index][:, index].log()

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


@attrs.frozen(eq=False)
class World:
    """A joint bound with all there is to know about it.

    Args:
        joint: q and p.
        xs: every datum [N, *X].
        log_data: log D(x) [N], nats.
        taus: every latent [S, *Z]; for reals a grid so fine and wide that sums are integrals.
        log_measure: log of what each latent counts for in a sum [S]; zero for bits.
        num_nodes: nodes of the quadrature that stands for draws from q; None for bits, where they are listed.
    """

    joint: JointBound
    xs: Tensor
    log_data: Tensor
    taus: Tensor
    log_measure: Tensor
    num_nodes: int | None

    @classmethod
    def of_bits(cls, seed: int = 0, prior: Prior | None = None) -> "World":
        """Three pixels and two latent bits under any prior over bits of shape [2].

        Its parameters are scattered; a prior left out is `Rates`.
        """
        joint = JointBound(BitInference(3, (2,)), Directed(prior or Rates((2,)), BitGenerator(2, 3)))
        return cls.of(joint, seed, 0.8, all_bits((3,)), all_bits((2,)), torch.zeros(4), None)

    @classmethod
    def of_reals(cls, seed: int = 0, prior: Prior | None = None, num_nodes: int = 40) -> "World":
        """A linear-Gaussian world: two pixels and one latent, under any prior over reals of shape [1].

        Draws are nodes of a quadrature through which gradients flow, as they do through `rsample`.
        """
        joint = JointBound(LinearInference(2, (1,)), Directed(prior or Bell((1,)), LinearGenerator(1, 2)))
        xs = 1.3 * torch.randn(4, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        taus = torch.linspace(-30, 30, 6001, dtype=torch.float64).unsqueeze(1)
        return cls.of(joint, seed, 0.2, xs, taus, torch.full((6001,), math.log(0.01)), num_nodes)

    @classmethod
    def of(
        cls, joint: JointBound, seed: int, scale: float, xs: Tensor, taus: Tensor, measure: Tensor, nodes: int | None
    ) -> "World":
        """Scatter the parameters, weigh the data unevenly, and let the prior know them."""
        scatter(joint, seed, scale)
        cast(Directed, joint.p).prior.bind(joint.q, xs)
        return cls(joint, xs, uneven(len(xs), seed), taus, measure.double(), nodes)

    def nodes(self, posterior: Distribution) -> tuple[Tensor, Tensor]:
        """Draws that stand for q(tau | x) of batch shape [...]: [Q, ..., *Z] and log-probabilities [Q, ...]."""
        if self.num_nodes is None:
            return _listed(posterior, self.taus)
        # Even nodes converge exponentially, and where log w bends faster than Gauss-Hermite ones.
        noise = torch.linspace(-8, 8, self.num_nodes, dtype=torch.float64).to(posterior.mean)
        column = [-1] + [1] * len(posterior.batch_shape)
        tau = posterior.mean + posterior.stddev * noise.view(*column, 1)
        log_prob = (-noise.square() / 2).log_softmax(0).view(column)
        return tau, log_prob.expand(-1, *posterior.batch_shape)

    def x_nodes(self, likelihood: Distribution) -> tuple[Tensor, Tensor]:
        """Draws that stand for p(x | tau), in a world of bits."""
        if self.num_nodes is not None:
            raise UsageError("data dreamed in a world of reals cannot be listed; examine this in a world of bits")
        return _listed(likelihood, self.xs)

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


def _listed(made: Distribution, values: Tensor) -> tuple[Tensor, Tensor]:
    """Every value of a distribution of batch shape [...]: [Q, ..., *E], and log-probabilities [Q, ...]."""
    column = values.view(len(values), *[1] * len(made.batch_shape), *made.event_shape)
    return column.expand(-1, *made.batch_shape, *made.event_shape), made.log_prob(column)


def uneven(count: int, seed: int) -> Tensor:
    """Log-probabilities [count], no two alike, float64."""
    return torch.randn(count, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64).log_softmax(0)


def parameter_groups(parts: Mapping[str, nn.Module]) -> dict[str, list[nn.Parameter]]:
    """Parameters of each part, without the parts that have none."""
    listed = {name: list(part.parameters()) for name, part in parts.items()}
    return {name: parameters for name, parameters in listed.items() if parameters}


def gradients(
    value: Tensor, groups: Mapping[str, list[nn.Parameter]], *, create_graph: bool = False
) -> dict[str, Tensor]:
    """Gradient of a scalar with respect to each group, flattened; zero where it does not depend on it."""
    flat = [parameter for parameters in groups.values() for parameter in parameters]
    slopes = torch.autograd.grad(
        value, flat, retain_graph=True, create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    grads = iter(slopes)
    return {name: torch.cat([next(grads).flatten() for _ in parameters]) for name, parameters in groups.items()}
