"""A restricted Boltzmann machine over bits, hidden units summed out, as a prior."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from unibound import EnergyPrior, Enumeration, UsageError, hookimpl, kernels
from unibound.distributions import Bits, pairwise_log_prob
from unibound.support import boolean

MAX_BITS = 12  # hidden units whose states are listed for the transitions


class RBM(EnergyPrior):
    """p(tau) = sum_h exp(tau'Wh + b'tau + c'h) / Z, with persistent chains for the gradient of log Z.

        F(tau) = -b'tau - sum_j softplus(c_j + (tau'W)_j)

    The annealing path scales W, b and c by beta and fades a base-rate distribution over tau out.

    Args:
        event_shape: shape [*Z] of one latent; its elements are the visible units.
        num_hidden: hidden units.
        num_chains: persistent chains M.
        steps: block Gibbs steps of every chain per training step.
        num_replicas: temperatures at which the chains are kept, evenly from 0 to 1; neighbors swap after each step.
        init_scale: standard deviation of the initial weights.

    Source: Smolensky, "Information processing in dynamical systems" (1986); as a prior of a deep
    model, Hu and Salakhutdinov, "Learning deep generative models with discrete latent variables" (2018).
    """

    support = boolean
    base_bias: Tensor

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        num_hidden: int = 64,
        num_chains: int = 100,
        steps: int = 5,
        num_replicas: int = 1,
        init_scale: float = 0.01,
    ) -> None:
        sizes = {"num_hidden": num_hidden, "num_chains": num_chains, "steps": steps, "num_replicas": num_replicas}
        for name, value in sizes.items():
            if value < 1:
                raise UsageError(f"rbm: {name} must be at least 1, not {value}")
        num_visible = math.prod(event_shape)
        chains = torch.randint(2, (num_chains, *event_shape)).to(torch.get_default_dtype())
        betas = torch.linspace(0, 1, num_replicas).tolist() if num_replicas > 1 else (1.0,)
        super().__init__(chains, steps, betas)
        self.weight = nn.Parameter(init_scale * torch.randn(num_visible, num_hidden))
        self.visible_bias = nn.Parameter(torch.zeros(num_visible))
        self.hidden_bias = nn.Parameter(torch.zeros(num_hidden))
        self.register_buffer("base_bias", torch.zeros(num_visible))

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        v = tau.flatten(-len(self.event_shape))  # [..., V]
        parameters = self.weight, self.visible_bias, self.hidden_bias
        return kernels.rbm_free_energy(v, *parameters, beta=beta, base_bias=self.base_bias)

    @classmethod
    def from_weights(cls, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> "RBM":
        """The RBM of given weight [V, H] and biases [V] and [H], in float32, ready to be evaluated."""
        num_visible, num_hidden = weight.shape
        rbm = cls((num_visible,), num_hidden=num_hidden)
        given = {"weight": weight, "visible_bias": visible_bias, "hidden_bias": hidden_bias}
        rbm.load_state_dict(given, strict=False)
        return rbm.eval()

    @torch.no_grad()
    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        v = tau.flatten(1)
        v = kernels.rbm_gibbs(
            v, self.weight, self.visible_bias, self.hidden_bias, steps, beta=beta, base_bias=self.base_bias
        )
        return v.view_as(tau)

    def contrast(self, tau: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        # The kernel moves states as `gibbs` does here; a subclass may move them otherwise.
        if self.transition is not None or getattr(self.gibbs, "__func__", None) is not RBM.gibbs:
            return super().contrast(tau, steps)
        return kernels.rbm_contrast(tau.flatten(1), self.weight, self.visible_bias, self.hidden_bias, steps)

    def log_transition(self, states: Tensor) -> Tensor:
        num_hidden = len(self.hidden_bias)
        if num_hidden > MAX_BITS:
            raise UsageError(f"rbm: transitions sum over 2^{num_hidden} hidden states; use at most {MAX_BITS} units")
        index = torch.arange(1 << num_hidden, device=states.device).unsqueeze(1)
        hidden = (index >> torch.arange(num_hidden, device=states.device) & 1).to(states.dtype)  # [G, H]
        visible = states.flatten(1)  # [S, V]
        up = pairwise_log_prob(Bits(visible @ self.weight + self.hidden_bias), hidden)  # [G, S]
        down = pairwise_log_prob(Bits(hidden @ self.weight.mT + self.visible_bias), visible)  # [S, G]
        return (down.exp() @ up.exp()).clamp_min(torch.finfo(up.dtype).tiny).log().mT  # [S, S]

    @torch.no_grad()
    def anneal(self, tau: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        if self.transition is not None:  # the kernels move states as `gibbs` does
            return super().anneal(tau, betas)
        sweep = kernels.rbm_ais if betas[-1] >= betas[0] else kernels.rbm_reverse_ais
        v, log_w = sweep(tau.flatten(1), self.weight, self.visible_bias, self.hidden_bias, self.base_bias, betas)
        return v.view_as(tau), log_w

    def base_sample(self, count: int) -> Tensor:
        uniform = torch.rand(count, *self.event_shape, dtype=self.base_bias.dtype, device=self.base_bias.device)
        return (uniform < self.base_bias.sigmoid().view(self.event_shape)).to(uniform.dtype)

    def base_log_z(self) -> float:
        # At beta = 0 every hidden unit is free: 2^H states of equal weight.
        return self.hidden_bias.numel() * math.log(2) + softplus(self.base_bias.double()).sum().item()

    def fit_base(self, tau: Tensor) -> None:
        # Smoothed as Salakhutdinov and Murray (2008) intend, but with a rate that never reaches 1.
        rate = (tau.flatten(1).double().sum(0) + 1) / (len(tau) + 2)  # [V]
        self.base_bias.copy_(rate.logit())

    def enumeration(self) -> Enumeration | None:
        """The smaller side: visible states with the hidden summed out, or the reverse."""
        num_visible, num_hidden = self.weight.shape
        if num_visible <= num_hidden:
            return super().enumeration()
        return Enumeration(num_hidden, self._hidden_log_f, self._visible_given)

    @torch.no_grad()
    def log_reach(self, tau: Tensor, targets: Tensor) -> Tensor:
        hidden = Bits(tau.flatten(1) @ self.weight + self.hidden_bias).sample()  # [S, H]
        visible = Bits(hidden @ self.weight.mT + self.visible_bias)
        return pairwise_log_prob(visible, targets.flatten(1)).mT  # [S, N]

    def _visible_given(self, hidden: Tensor) -> Tensor:
        return Bits(hidden @ self.weight.mT + self.visible_bias).sample().view(-1, *self.event_shape)

    def _hidden_log_f(self, hidden: Tensor) -> Tensor:
        visible = softplus(hidden @ self.weight.mT + self.visible_bias)  # [N, V]
        return hidden @ self.hidden_bias + visible.sum(-1)


@hookimpl
def register_priors(register):
    register("rbm", RBM)
