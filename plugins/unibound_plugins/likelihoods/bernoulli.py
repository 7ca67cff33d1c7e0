"""Independent bits."""

import attrs
from torch import Tensor
from torch.distributions import Distribution

from unibound import Likelihood, hookimpl
from unibound.distributions import Bits
from unibound.support import boolean


@attrs.frozen
class Bernoulli(Likelihood):
    """Every element is a bit, and the network's output its logit."""

    support = boolean

    def start(self, mean: Tensor) -> Tensor:
        return mean.clamp(0.01, 0.99).logit()

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        return Bits(outputs, len(event_shape))


@hookimpl
def register_likelihoods(register):
    register("bernoulli", Bernoulli)
