"""Independent logistic distributions with a location and a scale of their own."""

import attrs
from torch import Tensor
from torch.distributions import Distribution, Independent
from torch.nn.functional import softplus

from unibound import distributions, hookimpl
from unibound.likelihood import Located
from unibound.support import real


@attrs.frozen
class Logistic(Located):
    """Every element is logistic: close to a Gaussian, with tails that fall off exponentially.

        p(x) = sigmoid(z) sigmoid(-z) / s,   z = (x - m) / s

    The network's two outputs are the location m and the scale s before a softplus.

    Args:
        min_scale: smallest scale, which keeps a density over continuous data bounded.
    """

    support = real

    min_scale: float = attrs.field(default=1e-3, validator=attrs.validators.gt(0.0))

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        location, raw = outputs.unbind(-len(event_shape) - 1)
        logistic = distributions.Logistic(location, self.min_scale + softplus(raw))
        return Independent(logistic, len(event_shape), validate_args=False)


@hookimpl
def register_likelihoods(register):
    register("logistic", Logistic)
