"""A restricted Boltzmann machine over spins, hidden spins summed out, as a prior."""

import math
from types import MappingProxyType

import torch
from torch import Tensor, nn

from unibound import UsageError, hookimpl, kernels
from unibound.energies.centering import Centering
from unibound.energies.past import remember
from unibound.energies.restricted import Restricted
from unibound.energies.units import SpinUnits
from unibound.support import spin


class SpinRBM(Restricted):
    """p(tau) = sum_h exp(tau'Wh + b'tau + c'h) / Z, with tau and h in {-1, 1}.

        F(tau) = -b'tau - sum_j log 2 cosh(c_j + (tau'W)_j)

    It is an RBM over bits in other words, tau = 2v - 1, and is moved and annealed as that one: `as_bits` gives it, and
    the constant by which the two differ.

    Args:
        event_shape: shape [*Z] of one latent; its elements are the visible units.
        num_hidden: hidden spins.
        num_chains: persistent chains M.
        steps: block Gibbs steps of every chain per training step.
        num_replicas: temperatures at which the chains are kept, evenly from 0 to 1; neighbors swap after each step.
        num_snapshots: earlier weights at which they are kept instead, which swap likewise; see `Past`. 0 for none.
        init_scale: standard deviation of the initial weights.
        centered: take gradients as if spins were counted from their means over the persistent chains; see `Centering`.
            It changes how the machine learns, and nothing else.

    Source: Decelle and Furtlehner, "Restricted Boltzmann machine: recent advances and mean-field theory" (2021),
    https://arxiv.org/abs/2011.11307
    """

    support = spin
    small = MappingProxyType({"num_hidden": 4})
    base_bias: Tensor

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        num_hidden: int = 64,
        num_chains: int = 100,
        steps: int = 5,
        num_replicas: int = 1,
        num_snapshots: int = 0,
        init_scale: float = 0.01,
        centered: bool = False,
    ) -> None:
        if num_hidden < 1:
            raise UsageError(f"spin_rbm: num_hidden must be at least 1, not {num_hidden}")
        num_visible = math.prod(event_shape)
        base = SpinUnits(torch.zeros(num_visible))
        super().__init__(event_shape, base, num_chains=num_chains, steps=steps, num_replicas=num_replicas)
        self.weight = nn.Parameter(init_scale * torch.randn(num_visible, num_hidden))
        self.visible_bias = nn.Parameter(torch.zeros(num_visible))
        self.hidden_bias = nn.Parameter(torch.zeros(num_hidden))
        self.centering = Centering(torch.zeros(num_visible), torch.zeros(num_hidden)) if centered else None
        remember(self, num_snapshots)

    def machine(self) -> tuple[Tensor, SpinUnits, SpinUnits]:
        machine = self.weight, self.visible_bias, self.hidden_bias
        weight, visible, hidden = machine if self.centering is None else self.centering(*machine)
        return weight, SpinUnits(visible), SpinUnits(hidden)

    @torch.no_grad()
    def advance(self) -> None:
        super().advance()
        if self.centering is not None:
            v = self.chains.flatten(1)  # [M, V]
            self.centering.follow(v, torch.addmm(self.hidden_bias, v, self.weight).tanh())

    @classmethod
    def from_weights(cls, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> "SpinRBM":
        """The machine of given weight [V, H] and biases [V] and [H], in float32, ready to be evaluated."""
        rbm = cls((len(visible_bias),), num_hidden=len(hidden_bias))
        given = {"weight": weight, "visible_bias": visible_bias, "hidden_bias": hidden_bias}
        rbm.load_state_dict(given, strict=False)
        return rbm.eval()

    def as_bits(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weight and biases of the same machine over bits v = (tau + 1) / 2, and log Z less that one's log Z, nats."""
        weight, b, c = self.weight, self.visible_bias, self.hidden_bias
        return 4 * weight, 2 * (b - weight.sum(1)), 2 * (c - weight.sum(0)), weight.sum() - b.sum() - c.sum()

    @torch.no_grad()
    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        weight, visible, hidden, _ = self.as_bits()
        v = (tau.flatten(1) + 1) / 2
        v = kernels.rbm_gibbs(v, weight, visible, hidden, steps, beta=beta, base_bias=2 * self.base_bias)
        return (2 * v - 1).view_as(tau)

    @torch.no_grad()
    def anneal(self, tau: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        if self.transition is not None:  # the kernels move states as `gibbs` does
            return super().anneal(tau, betas)
        weight, visible, hidden, offset = self.as_bits()
        sweep = kernels.rbm_ais if betas[-1] >= betas[0] else kernels.rbm_reverse_ais
        v, log_w = sweep((tau.flatten(1) + 1) / 2, weight, visible, hidden, 2 * self.base_bias, betas)
        # F_beta of the spins is that of the bits less beta times the offset, and the base has one of its own.
        log_w = log_w + (betas[-1] - betas[0]) * (offset + self.base_bias.sum())
        return (2 * v - 1).view_as(tau), log_w


@hookimpl
def register_priors(register):
    register("spin_rbm", SpinRBM)
