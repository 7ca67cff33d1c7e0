"""A restricted Boltzmann machine over categories, hidden bits summed out, as a prior."""

import math
from types import MappingProxyType

import torch
from torch import Tensor, nn

from unibound import UsageError, hookimpl
from unibound.energies.past import remember
from unibound.energies.restricted import Restricted
from unibound.energies.units import BitUnits, CategoryUnits
from unibound.support import Constraint, integer_interval


class PottsRBM(Restricted):
    """p(tau) = sum_h exp(sum_i b_i(tau_i) + sum_ij W_ij(tau_i) h_j + c'h) / Z, with tau_i one of 0 .. q - 1.

    Adding the same to all categories of a unit, in W and off c, changes nothing but log Z. Here that is settled: b and
    W are read less their means over the categories, the zero-sum gauge, whatever their values, so that nothing drifts.

    Args:
        event_shape: shape [*Z] of one latent; its elements are the visible units.
        num_categories: q.
        num_hidden: hidden bits.
        num_chains: persistent chains M.
        steps: block Gibbs steps of every chain per training step.
        num_replicas: temperatures at which the chains are kept, evenly from 0 to 1; neighbors swap after each step.
        num_snapshots: earlier weights at which they are kept instead, which swap likewise; see `Past`. 0 for none.
        init_scale: standard deviation of the initial weights.

    Source: Tubiana, Cocco and Monasson, "Learning protein constitutive motifs from sequence data" (2019),
    https://doi.org/10.7554/eLife.39397
    """

    small = MappingProxyType({"num_hidden": 4})
    offset: Tensor

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        num_categories: int = 3,
        num_hidden: int = 64,
        num_chains: int = 100,
        steps: int = 5,
        num_replicas: int = 1,
        num_snapshots: int = 0,
        init_scale: float = 0.01,
    ) -> None:
        for name, value, least in (("num_categories", num_categories, 2), ("num_hidden", num_hidden, 1)):
            if value < least:
                raise UsageError(f"potts_rbm: {name} must be at least {least}, not {value}")
        self.num_categories = num_categories
        num_visible = math.prod(event_shape)
        base = CategoryUnits(torch.zeros(num_visible * num_categories), num_categories)
        super().__init__(event_shape, base, num_chains=num_chains, steps=steps, num_replicas=num_replicas)
        self.weight = nn.Parameter(init_scale * torch.randn(num_visible, num_categories, num_hidden))
        self.visible_bias = nn.Parameter(torch.zeros(num_visible, num_categories))
        self.hidden_bias = nn.Parameter(torch.zeros(num_hidden))
        self.register_buffer("offset", torch.zeros(()))
        remember(self, num_snapshots)

    @property
    def support(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return integer_interval(0, self.num_categories - 1)

    @classmethod
    def support_of(cls, *, num_categories: int = 3, **_: object) -> Constraint:
        return integer_interval(0, num_categories - 1)

    def machine(self) -> tuple[Tensor, CategoryUnits, BitUnits]:
        weight = self.weight - self.weight.mean(1, keepdim=True)
        bias = self.visible_bias - self.visible_bias.mean(1, keepdim=True) + self.offset / len(self.visible_bias)
        return weight.flatten(0, 1), CategoryUnits(bias.flatten(), self.num_categories), BitUnits(self.hidden_bias)

    @classmethod
    def from_weights(cls, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> "PottsRBM":
        """The machine of given weight [V, q, H] and biases [V, q] and [H], in float32, ready to be evaluated.

        It has the log Z of the gauge that they are in; set `offset` to zero for that of the zero-sum gauge.
        """
        num_visible, num_categories, num_hidden = weight.shape
        rbm = cls((num_visible,), num_categories=num_categories, num_hidden=num_hidden)
        moved = hidden_bias + weight.mean(1).sum(0)  # what the gauge takes from W
        given = {"weight": weight, "visible_bias": visible_bias, "hidden_bias": moved}
        rbm.load_state_dict(given | {"offset": visible_bias.mean(1).sum()}, strict=False)
        return rbm.eval()


@hookimpl
def register_priors(register):
    register("potts_rbm", PottsRBM)
