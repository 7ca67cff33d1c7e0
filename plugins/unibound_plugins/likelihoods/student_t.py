"""Independent Student-t distributions with a location and a scale of their own."""

import attrs
from torch import Tensor, distributions
from torch.distributions import Distribution, Independent
from torch.nn.functional import softplus

from unibound import hookimpl
from unibound.likelihood import Located
from unibound.support import real


@attrs.frozen
class StudentT(Located):
    """Every element is Student-t: the tails fall off as a power, so few data are outliers.

        p(x) is proportional to (1 + (x - m)^2 / (n s^2))^(-(n + 1) / 2)

    The network's two outputs are the location m and the scale s before a softplus; the degrees of freedom
    n are a setting. As q(tau | x) under a Gaussian prior its heavier tails keep the importance weights bounded.

    Args:
        degrees: degrees of freedom, above 1, so that there is a mean; a Gaussian in the limit.
        min_scale: smallest scale, which keeps a density over continuous data bounded.
    """

    support = real

    degrees: float = attrs.field(default=5.0, validator=attrs.validators.gt(1.0))
    min_scale: float = attrs.field(default=1e-3, validator=attrs.validators.gt(0.0))

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        location, raw = outputs.unbind(-len(event_shape) - 1)
        degrees = location.new_tensor(self.degrees)
        t = distributions.StudentT(degrees, location, self.min_scale + softplus(raw), validate_args=False)
        return Independent(t, len(event_shape), validate_args=False)


@hookimpl
def register_likelihoods(register):
    register("student_t", StudentT)
