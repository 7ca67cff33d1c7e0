"""Independent spins."""

import attrs
from torch import Tensor
from torch.distributions import Distribution

from unibound import Likelihood, hookimpl
from unibound.distributions import discrete
from unibound.support import spin


@attrs.frozen
class Spins(Likelihood):
    """Every element is -1 or 1, and the network's output log p(1) / p(-1)."""

    support = spin

    def start(self, mean: Tensor) -> Tensor:
        return ((1 + mean) / 2).clamp(0.01, 0.99).logit()

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        return discrete.Spins(outputs, len(event_shape))


@hookimpl
def register_likelihoods(register):
    register("spins", Spins)
