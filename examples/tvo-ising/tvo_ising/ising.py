"""A chain of spins with fields and couplings of their own, as a prior."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from unibound import EnergyPrior, UsageError, hookimpl
from unibound.support import boolean


class Ising(EnergyPrior):
    """p(tau) = exp(sum_i h_i tau_i + sum_i J_i s_i s_{i+1}) / Z with spins s = 2 tau - 1.

    Every element of tau is a spin, kept as a bit, and its neighbors are those before and after it. Given
    every other spin the rest are independent, so a step redraws the even ones, the odd ones and the even
    ones again: a palindrome, and therefore reversible, which reverse annealing needs.

    The annealing path scales h and J by beta and fades a base-rate distribution over tau out.

    Args:
        event_shape: shape [*Z] of one latent.
        num_chains: persistent chains M.
        steps: steps of every chain per training step.

    Source: Ising, "Beitrag zur Theorie des Ferromagnetismus" (1925).
    """

    support = boolean
    base_bias: Tensor

    def __init__(self, event_shape: tuple[int, ...], *, num_chains: int = 100, steps: int = 2) -> None:
        if num_chains < 1 or steps < 1:
            raise UsageError(f"ising: num_chains and steps must be at least 1, not {num_chains} and {steps}")
        size = math.prod(event_shape)
        super().__init__(torch.randint(2, (num_chains, *event_shape)).to(torch.get_default_dtype()), steps)
        self.field = nn.Parameter(torch.zeros(size))
        self.coupling = nn.Parameter(torch.zeros(size - 1))
        self.register_buffer("base_bias", torch.zeros(size))

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        v = tau.flatten(-len(self.event_shape))  # [..., V]
        s = 2 * v - 1
        return -(v @ self._field(beta)) - beta * (s[..., :-1] * s[..., 1:]) @ self.coupling

    @torch.no_grad()
    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        v, field = tau.flatten(1).clone(), self._field(beta)  # [M, V], [V]
        left = torch.cat([self.coupling.new_zeros(1), self.coupling])  # J of each spin with the one before it
        right = torch.cat([self.coupling, self.coupling.new_zeros(1)])
        for _ in range(steps):
            for parity in (0, 1, 0):
                s = 2 * v - 1
                pull = left * s.roll(1, 1) + right * s.roll(-1, 1)  # [M, V]; what rolls around meets a zero
                logit = (field + 2 * beta * pull)[:, parity::2]
                v[:, parity::2] = (torch.rand_like(logit) < logit.sigmoid()).to(v.dtype)
        return v.view_as(tau)

    def base_sample(self, count: int) -> Tensor:
        rate = self.base_bias.sigmoid().expand(count, -1)
        return torch.bernoulli(rate).view(count, *self.event_shape)

    def base_log_z(self) -> float:
        return softplus(self.base_bias.double()).sum().item()

    def fit_base(self, tau: Tensor) -> None:
        rate = (tau.flatten(1).double().sum(0) + 1) / (len(tau) + 2)  # [V]
        self.base_bias.copy_(rate.logit())

    @torch.no_grad()
    def exact_log_z(self) -> float:
        """log Z by the transfer matrix, in time linear in the length; to compare estimates with."""
        spins = torch.tensor([-1.0, 1.0], dtype=torch.float64)
        field, coupling = self.field.double(), self.coupling.double()
        log_z = field[0] * (spins + 1) / 2  # [2]; of the spins so far, by the value of the last
        for h, j in zip(field[1:], coupling, strict=True):
            step = j * spins.unsqueeze(1) * spins + h * (spins + 1) / 2  # [2, 2]
            log_z = (log_z.unsqueeze(1) + step).logsumexp(0)
        return log_z.logsumexp(0).item()

    def _field(self, beta: float) -> Tensor:
        return beta * self.field + (1 - beta) * self.base_bias


@hookimpl
def register_priors(register):
    register("ising", Ising)
