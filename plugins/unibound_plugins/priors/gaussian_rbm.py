"""A restricted Boltzmann machine over reals, hidden units summed out, as a prior."""

import math
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from unibound import UsageError, hookimpl
from unibound.energies.past import remember
from unibound.energies.restricted import Restricted
from unibound.energies.units import BitUnits, CountUnits, RealUnits, RectifiedUnits, Units
from unibound.support import real

TIED = 4
"""Bits of a hidden unit that counts."""


class GaussianRBM(Restricted):
    """p(tau) = sum_h exp(-E(tau, h)) / Z: with hidden bits a mixture of 2^H normals of one covariance.

        E = sum_i (tau_i - m_i)^2 / (2 s_i^2) - sum_ij (tau_i / s_i^2) W_ij h_j - c'h

    so that tau given h is N(m + Wh, s^2). log s is learned, best at a lower rate than the rest. Weights of the other
    convention in print, (tau_i / s_i) W_ij h_j, are these divided by s_i; `from_weights` reads both.

    Args:
        event_shape: shape [*Z] of one latent; its elements are the visible units.
        num_hidden: hidden units.
        hidden: what they are: bits; counts, each four bits tied together; or rectified, reals from 0 on under a normal.
        num_chains: persistent chains M.
        steps: block Gibbs steps of every chain per training step.
        num_replicas: temperatures at which the chains are kept, evenly from 0 to 1; neighbors swap after each step.
        num_snapshots: earlier weights at which they are kept instead, which swap likewise; see `Past`. 0 for none.
        init_scale: standard deviation of the initial weights.

    Source: Liao, Kornblith, Ren, Fleet and Hinton, "Gaussian-Bernoulli RBMs without tears" (2022),
    https://arxiv.org/abs/2210.10318; Cho, Ilin and Raiko, "Improved learning of Gaussian-Bernoulli restricted Boltzmann
    machines" (2011), https://doi.org/10.1007/978-3-642-21735-7_2
    """

    support = real
    small = MappingProxyType({"num_hidden": 4})

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        num_hidden: int = 64,
        hidden: Literal["bits", "counts", "rectified"] = "bits",
        num_chains: int = 100,
        steps: int = 5,
        num_replicas: int = 1,
        num_snapshots: int = 0,
        init_scale: float = 0.01,
    ) -> None:
        if num_hidden < 1:
            raise UsageError(f"gaussian_rbm: num_hidden must be at least 1, not {num_hidden}")
        num_visible = math.prod(event_shape)
        base = RealUnits.of(torch.zeros(num_visible), torch.ones(num_visible))
        super().__init__(event_shape, base, num_chains=num_chains, steps=steps, num_replicas=num_replicas)
        self.hidden = hidden
        self.weight = nn.Parameter(init_scale * torch.randn(num_visible, num_hidden))
        self.mean = nn.Parameter(torch.zeros(num_visible))
        self.log_scale = nn.Parameter(torch.zeros(num_visible))
        self.hidden_bias = nn.Parameter(torch.zeros(num_hidden))
        remember(self, num_snapshots)

    def machine(self) -> tuple[Tensor, RealUnits, Units]:
        scale = self.log_scale.exp()
        return self.weight / scale.square().unsqueeze(1), RealUnits.of(self.mean, scale), self._hidden_units()

    def _hidden_units(self) -> Units:
        if self.hidden == "counts":
            return CountUnits(self.hidden_bias, TIED)
        if self.hidden == "rectified":
            return RectifiedUnits(self.hidden_bias, torch.ones_like(self.hidden_bias))
        return BitUnits(self.hidden_bias)

    @classmethod
    def from_weights(
        cls,
        weight: Tensor,
        mean: Tensor,
        hidden_bias: Tensor,
        scale: Tensor,
        *,
        convention: Literal["variance", "scale"] = "variance",
    ) -> "GaussianRBM":
        """The machine of given weight [V, H], mean and scale [V] and hidden bias [H], in float32, to be evaluated.

        Args:
            convention: by what tau_i is divided where it meets the weight: the variance s_i^2, or the scale s_i.
        Raises:
            UsageError: scales that are not positive.
        """
        if not bool((scale > 0).all()):
            bad = scale[~(scale > 0)][0].item()
            raise UsageError(f"gaussian_rbm: scales must be positive, but one is {bad:g}; give standard deviations")
        if convention not in ("variance", "scale"):
            raise UsageError(f"gaussian_rbm: convention must be variance or scale, not {convention!r}")
        rbm = cls((len(mean),), num_hidden=len(hidden_bias))
        own = weight if convention == "variance" else weight * scale.unsqueeze(1)
        given = {"weight": own, "mean": mean, "log_scale": scale.log(), "hidden_bias": hidden_bias}
        rbm.load_state_dict(given, strict=False)
        return rbm.eval()


@hookimpl
def register_priors(register):
    register("gaussian_rbm", GaussianRBM)
