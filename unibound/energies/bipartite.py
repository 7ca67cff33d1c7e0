"""Energies over bits on one side of a matrix, the bits on its other side summed out.

Shapes: V bits of a state, H bits that are summed out, M chains, S listed states. Everything is in nats.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from unibound import kernels
from unibound.distributions import Bits, pairwise_log_prob
from unibound.energies.energy import EnergyPrior, Enumeration
from unibound.errors import UsageError
from unibound.support import boolean

MAX_BITS = 12  # bits that are summed out, where their states are listed for the transitions


class Bipartite(EnergyPrior):
    """Bits v joined to bits h by a matrix, within neither side: a restricted Boltzmann machine, or layers in turn.

        F_beta(v) = -(1 - beta) a'v - beta b'v - sum_j softplus(beta (c_j + (v'W)_j))

    The annealing path scales W, b and c by beta and fades a base-rate distribution over v, of logits a, out.
    A subclass says what W, b and c are; moves, annealing, listings and exact transitions follow.

    Args:
        state_shape: shape [*S] of one state; its elements are v.
        num_chains: persistent chains M.
        steps: block Gibbs steps of every chain per training step.
        num_replicas: temperatures at which the chains are kept, evenly from 0 to 1.
        event_shape: what of a state the layer below sees; all of it by default.
    """

    support = boolean
    base_bias: Tensor

    def __init__(
        self,
        state_shape: Sequence[int],
        *,
        num_chains: int,
        steps: int,
        num_replicas: int,
        event_shape: Sequence[int] | None = None,
    ) -> None:
        sizes = {"num_chains": num_chains, "steps": steps, "num_replicas": num_replicas}
        for name, value in sizes.items():
            if value < 1:
                raise UsageError(f"{type(self).__name__.lower()}: {name} must be at least 1, not {value}")
        chains = torch.randint(2, (num_chains, *state_shape)).to(torch.get_default_dtype())
        betas = torch.linspace(0, 1, num_replicas).tolist() if num_replicas > 1 else (1.0,)
        super().__init__(chains, steps, betas, event_shape)
        self.register_buffer("base_bias", torch.zeros(math.prod(state_shape)))

    @abstractmethod
    def machine(self) -> tuple[Tensor, Tensor, Tensor]:
        """W [V, H], the biases b [V] of a state and c [H] of what is summed out, differentiable."""

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        v = tau.flatten(-len(self.state_shape))  # [..., V]
        return kernels.rbm_free_energy(v, *self.machine(), beta=beta, base_bias=self.base_bias)

    @torch.no_grad()
    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        v = kernels.rbm_gibbs(tau.flatten(1), *self.machine(), steps, beta=beta, base_bias=self.base_bias)
        return v.view_as(tau)

    def contrast(self, tau: Tensor, steps: int, layer: int = 0) -> tuple[Tensor, Tensor]:
        if layer or self.transition is not None:  # the kernel moves states as `gibbs` does
            return super().contrast(tau, steps, layer)
        return kernels.rbm_contrast(tau.flatten(1), *self.machine(), steps)

    def log_transition(self, states: Tensor, beta: float = 1.0) -> Tensor:
        weight, visible_bias, hidden_bias = self.machine()
        if (num_hidden := len(hidden_bias)) > MAX_BITS:
            who = type(self).__name__.lower()
            raise UsageError(f"{who}: transitions sum over 2^{num_hidden} hidden states; use at most {MAX_BITS} units")
        index = torch.arange(1 << num_hidden, device=states.device).unsqueeze(1)
        hidden = (index >> torch.arange(num_hidden, device=states.device) & 1).to(states.dtype)  # [G, H]
        visible = states.flatten(1)  # [S, V]
        up = pairwise_log_prob(Bits(beta * (visible @ weight + hidden_bias)), hidden)  # [G, S]
        logits = beta * (hidden @ weight.mT + visible_bias) + (1 - beta) * self.base_bias
        down = pairwise_log_prob(Bits(logits), visible)  # [S, G]
        return (down.exp() @ up.exp()).clamp_min(torch.finfo(up.dtype).tiny).log().mT  # [S, S]

    @torch.no_grad()
    def anneal(self, tau: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        if self.transition is not None:  # the kernels move states as `gibbs` does
            return super().anneal(tau, betas)
        sweep = kernels.rbm_ais if betas[-1] >= betas[0] else kernels.rbm_reverse_ais
        v, log_w = sweep(tau.flatten(1), *self.machine(), self.base_bias, betas)
        return v.view_as(tau), log_w

    def base_sample(self, count: int) -> Tensor:
        uniform = torch.rand(count, *self.state_shape, dtype=self.base_bias.dtype, device=self.base_bias.device)
        return (uniform < self.base_bias.sigmoid().view(self.state_shape)).to(uniform.dtype)

    def base_log_z(self) -> float:
        # At beta = 0 every unit that is summed out is free: 2^H states of equal weight.
        hidden = self.machine()[2].numel()
        return hidden * math.log(2) + softplus(self.base_bias.double()).sum().item()

    def fit_base(self, tau: Tensor) -> None:
        # Smoothed as Salakhutdinov and Murray (2008) intend, but with a rate that never reaches 1.
        rate = (tau.flatten(1).double().sum(0) + 1) / (len(tau) + 2)  # [V]
        self.base_bias.copy_(rate.logit())

    def enumeration(self) -> Enumeration | None:
        """The smaller side: states with the rest summed out, or the reverse."""
        num_visible, num_hidden = self.machine()[0].shape
        if num_visible <= num_hidden:
            return super().enumeration()
        return Enumeration(num_hidden, self._hidden_log_f, self._visible_given)

    @torch.no_grad()
    def log_reach(self, tau: Tensor, targets: Tensor) -> Tensor:
        weight, visible_bias, hidden_bias = self.machine()
        hidden = Bits(tau.flatten(1) @ weight + hidden_bias).sample()  # [S, H]
        return pairwise_log_prob(Bits(hidden @ weight.mT + visible_bias), targets.flatten(1)).mT  # [S, N]

    def _visible_given(self, hidden: Tensor) -> Tensor:
        weight, visible_bias, _ = self.machine()
        return Bits(hidden @ weight.mT + visible_bias).sample().view(-1, *self.state_shape)

    def _hidden_log_f(self, hidden: Tensor) -> Tensor:
        weight, visible_bias, hidden_bias = self.machine()
        return hidden @ hidden_bias + softplus(hidden @ weight.mT + visible_bias).sum(-1)  # [N]
