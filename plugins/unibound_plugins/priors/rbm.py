"""A restricted Boltzmann machine over bits, hidden units summed out, as a prior."""

import math

import torch
from torch import Tensor, nn

from unibound import UsageError, hookimpl
from unibound.energies.bipartite import Bipartite
from unibound.energies.centering import Centering
from unibound.energies.past import remember


class RBM(Bipartite):
    """p(tau) = sum_h exp(tau'Wh + b'tau + c'h) / Z, with persistent chains for the gradient of log Z.

        F(tau) = -b'tau - sum_j softplus(c_j + (tau'W)_j)

    The annealing path scales W, b and c by beta and fades a base-rate distribution over tau out.

    Args:
        event_shape: shape [*Z] of one latent; its elements are the visible units.
        num_hidden: hidden units.
        num_chains: persistent chains M.
        steps: block Gibbs steps of every chain per training step.
        num_replicas: temperatures at which the chains are kept, evenly from 0 to 1; neighbors swap after each step.
        num_snapshots: earlier weights at which they are kept instead, which swap likewise; see `Past`. 0 for none.
        init_scale: standard deviation of the initial weights.
        centered: take gradients as if units were counted from their means over the persistent chains; see `Centering`.
            It changes how the machine learns, and nothing else. Chains that begin at data leave the means at 1/2. For
            SGD: Adam, which scales each element by itself, takes apart what is to be balanced.

    Source: Smolensky, "Information processing in dynamical systems" (1986); as a prior of a deep
    model, Hu and Salakhutdinov, "Learning deep generative models with discrete latent variables" (2018).
    """

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
            raise UsageError(f"rbm: num_hidden must be at least 1, not {num_hidden}")
        super().__init__(event_shape, num_chains=num_chains, steps=steps, num_replicas=num_replicas)
        num_visible = math.prod(event_shape)
        self.weight = nn.Parameter(init_scale * torch.randn(num_visible, num_hidden))
        self.visible_bias = nn.Parameter(torch.zeros(num_visible))
        self.hidden_bias = nn.Parameter(torch.zeros(num_hidden))
        halves = torch.full((num_visible,), 0.5), torch.full((num_hidden,), 0.5)
        self.centering = Centering(*halves) if centered else None
        remember(self, num_snapshots)

    def machine(self) -> tuple[Tensor, Tensor, Tensor]:
        machine = self.weight, self.visible_bias, self.hidden_bias
        return machine if self.centering is None else self.centering(*machine)

    @torch.no_grad()
    def advance(self) -> None:
        super().advance()
        if self.centering is not None:
            v = self.chains.flatten(1)  # [M, V]
            self.centering.follow(v, torch.addmm(self.hidden_bias, v, self.weight).sigmoid())

    @classmethod
    def from_weights(
        cls, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, *, dtype: torch.dtype = torch.float32
    ) -> "RBM":
        """The RBM of given weight [V, H] and biases [V] and [H], in float32 unless said, ready to be evaluated."""
        num_visible, num_hidden = weight.shape
        rbm = cls((num_visible,), num_hidden=num_hidden).to(dtype)
        given = {"weight": weight, "visible_bias": visible_bias, "hidden_bias": hidden_bias}
        rbm.load_state_dict(given, strict=False)
        return rbm.eval()


@hookimpl
def register_priors(register):
    register("rbm", RBM)
