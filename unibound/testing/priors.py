"""The priors of the worlds: of every finite support, and of reals, with an energy and without."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import one_hot, softplus

from unibound.distributions import Bits
from unibound.energies.energy import EnergyPrior
from unibound.prior import Prior
from unibound.support import boolean, integer_interval, real, spin, values
from unibound.testing.listing import all_states, number

STEEP = 3.0
"""By how much hidden units of a machine bend more than its parameters say, so that no F_beta is nearly linear."""


class Rates(Prior):
    """Independent bits, each with a logit of its own: a normalized prior."""

    support = boolean

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape)
        self.logits = nn.Parameter(torch.zeros(event_shape))

    def log_prob(self, tau: Tensor) -> Tensor:
        return Bits(self.logits, len(self.event_shape)).log_prob(tau)

    def sample(self, count: int) -> Tensor:
        return Bits(self.logits, len(self.event_shape)).sample((count,))


class Bell(Prior):
    """Independent normals with learned means and scales: a normalized prior over reals."""

    support = real

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


class Listed(EnergyPrior):
    """An energy over few states, annealed from independent sites and redrawn site by site: an unnormalized prior."""

    support = boolean
    base_logits: Tensor

    def __init__(self, event_shape: tuple[int, ...], *, num_chains: int = 5, steps: int = 1) -> None:
        self.states = all_states(self.support, event_shape)
        chosen = torch.randint(len(self.states), (num_chains,))
        super().__init__(self.states[chosen].to(torch.get_default_dtype()), steps)
        size, base = math.prod(event_shape), len(values(self.support) or ())
        slopes = torch.linspace(-0.6, 0.9, size).unsqueeze(1)
        self.register_buffer("base_logits", slopes * torch.linspace(0, 1, base))  # [Z, V], of each value of each site

    def _redraws(self, beta: float = 1.0) -> list[tuple[Tensor, Tensor]]:
        """The states that a step may go to from every state, site by site, forth and back; and how likely: [S, V]."""
        free = self.free_energy(self.states.to(self.base_logits), beta)  # [S]
        size, base = self.base_logits.shape
        index = torch.arange(len(free)).unsqueeze(1)
        steps = []
        for place in (base**site for site in range(size)):
            there = index - index // place % base * place + torch.arange(base) * place  # [S, V]
            steps.append((there, (-free[there]).softmax(1)))
        return [*steps, *reversed(steps)]  # so it is reversible

    @torch.no_grad()
    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        redraws, state = self._redraws(beta), number(tau.flatten(1), self.support)
        for there, rate in redraws * steps:
            below = rate[state].cumsum(1)[:, :-1] < torch.rand(len(state), 1, dtype=rate.dtype)
            state = there[state, below.sum(1)]
        return self.states.to(tau)[state]

    def log_transition(self, states: Tensor, beta: float = 1.0) -> Tensor:
        total = torch.eye(len(self.states)).to(self.base_logits)
        for there, rate in self._redraws(beta):
            total = total @ (one_hot(there, len(total)) * rate.unsqueeze(2)).sum(1)
        index = number(states.flatten(1), self.support)
        return total[index][:, index].log()

    def base_sample(self, count: int) -> Tensor:
        digits = torch.multinomial(self.base_logits.softmax(1), count, replacement=True).T  # [count, Z]
        listed = torch.tensor(values(self.support)).to(self.base_logits)
        return listed[digits].view(count, *self.event_shape)

    def base_log_z(self) -> float:
        return self.base_logits.double().logsumexp(1).sum().item()

    def fit_base(self, tau: Tensor) -> None:
        listed = torch.tensor(values(self.support)).to(tau)
        counts = (tau.flatten(1).unsqueeze(-1) == listed).double().sum(0) + 1  # [Z, V]
        self.base_logits.copy_((counts / counts.sum(1, keepdim=True)).log())


class Table(Listed):
    """Bits with an energy for every state."""

    def __init__(self, event_shape: tuple[int, ...], *, num_chains: int = 5, steps: int = 1) -> None:
        super().__init__(event_shape, num_chains=num_chains, steps=steps)
        self.energies = nn.Parameter(torch.zeros(len(self.states)))

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        index = number(tau.flatten(-len(self.event_shape)), self.support)  # [...]
        size, base = self.base_logits.shape
        digits = index.unsqueeze(-1) // base ** torch.arange(size) % base  # [..., Z]
        bias = self.base_logits[torch.arange(size), digits].sum(-1)
        return beta * self.energies[index] - (1 - beta) * bias


class Spins(Table):
    """The same over spins."""

    support = spin


class Categories(Table):
    """The same over three categories, numbered from 0."""

    support = integer_interval(0, 2)


class Machine(Listed):
    """Bits beside hidden units that are summed out: F_beta is not linear in beta, and has a gradient in tau."""

    def __init__(self, event_shape: tuple[int, ...], *, num_chains: int = 5, steps: int = 1) -> None:
        super().__init__(event_shape, num_chains=num_chains, steps=steps)
        self.weight = nn.Parameter(torch.zeros(math.prod(event_shape), 2))
        self.hidden_bias = nn.Parameter(torch.zeros(2))

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        low, high = self.states.min().item(), self.states.max().item()
        flat = tau.flatten(-len(self.event_shape))  # [..., Z]
        base = self.base_logits[:, 0] + (flat - low) / (high - low) * self.base_logits.diff(dim=1).squeeze(1)
        hidden = softplus(beta * STEEP * (flat @ self.weight + self.hidden_bias))
        return -hidden.sum(-1) - (1 - beta) * base.sum(-1)

    def base_log_z(self) -> float:
        return super().base_log_z() + len(self.hidden_bias) * math.log(2)


class SpinMachine(Machine):
    """The same over spins."""

    support = spin


class Well(EnergyPrior):
    """A double well over reals, its sites independent of one another: F = a x^4 / 4 - b x^2 / 2 + c x, summed.

    a = softplus(its parameter) + 1/10, so that Z is finite. It is annealed from a normal, and moved by Metropolis
    steps.
    """

    support = real
    base_mean: Tensor

    def __init__(self, event_shape: tuple[int, ...], *, num_chains: int = 5, steps: int = 2) -> None:
        super().__init__(torch.randn(num_chains, *event_shape), steps)
        self.quartic = nn.Parameter(torch.ones(event_shape))
        self.quadratic = nn.Parameter(torch.ones(event_shape))
        self.linear = nn.Parameter(torch.full(event_shape, 0.3))
        self.register_buffer("base_mean", torch.zeros(event_shape))

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        quartic = softplus(self.quartic) + 0.1
        own = quartic * tau**4 / 4 - self.quadratic * tau.square() / 2 + self.linear * tau
        base = (tau - self.base_mean).square() / 2
        return (beta * own + (1 - beta) * base).flatten(-len(self.event_shape)).sum(-1)

    @torch.no_grad()
    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        free = self.free_energy(tau, beta)
        for _ in range(4 * steps):
            proposed = tau + 1.5 * torch.randn_like(tau)
            there = self.free_energy(proposed, beta)
            taken = torch.rand_like(free).log() < free - there
            free = torch.where(taken, there, free)
            tau = torch.where(taken.view(-1, *[1] * len(self.event_shape)), proposed, tau)
        return tau

    def base_sample(self, count: int) -> Tensor:
        return self.base_mean + torch.randn(count, *self.event_shape).to(self.base_mean)

    def base_log_z(self) -> float:
        return self.base_mean.numel() * math.log(2 * math.pi) / 2

    def fit_base(self, tau: Tensor) -> None:
        self.base_mean.copy_(tau.mean(0))
