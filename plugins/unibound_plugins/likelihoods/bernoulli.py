"""Independent bits."""

import attrs
from torch import Tensor
from torch.distributions import Distribution

from unibound import Likelihood, hookimpl
from unibound.distributions import Bits


@attrs.frozen
class Bernoulli(Likelihood):
    """Every element is a bit, and the network's output its logit."""

    support = "bits"

    def __call__(self, outputs: Tensor, event_dims: int) -> Distribution:
        return Bits(outputs.squeeze(-event_dims - 1), event_dims)


@hookimpl
def register_likelihoods(register):
    register("bernoulli", Bernoulli)
