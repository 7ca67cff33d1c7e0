"""Independent Laplace distributions with a location and a scale of their own."""

import attrs
from torch import Tensor, distributions
from torch.distributions import Distribution, Independent
from torch.nn.functional import softplus

from unibound import Likelihood, hookimpl


@attrs.frozen
class Laplace(Likelihood):
    """Every element is Laplace: a peak, and tails that fall off exponentially.

        p(x) = exp(-|x - m| / s) / 2s

    The network's two outputs are the location m and the scale s before a softplus.

    Args:
        min_scale: smallest scale, which keeps a density over continuous data bounded.
    """

    support = "reals"
    num_outputs = 2

    min_scale: float = attrs.field(default=1e-3, validator=attrs.validators.gt(0.0))

    def __call__(self, outputs: Tensor, event_dims: int) -> Distribution:
        location, raw = outputs.unbind(-event_dims - 1)
        laplace = distributions.Laplace(location, self.min_scale + softplus(raw), validate_args=False)
        return Independent(laplace, event_dims, validate_args=False)


@hookimpl
def register_likelihoods(register):
    register("laplace", Laplace)
