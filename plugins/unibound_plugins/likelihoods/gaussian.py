"""Independent normals with a mean and a scale of their own."""

import attrs
from torch import Tensor
from torch.distributions import Distribution, Normal
from torch.nn.functional import softplus

from unibound import hookimpl
from unibound.distributions import Normals
from unibound.likelihood import Located
from unibound.support import real


@attrs.frozen
class Gaussian(Located):
    """Every element is normal; the network's two outputs are its mean and its scale before a softplus.

    Args:
        min_scale: smallest standard deviation, which keeps a density over continuous data bounded.
    """

    support = real

    min_scale: float = attrs.field(default=1e-3, validator=attrs.validators.gt(0.0))

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        mean, raw = outputs.unbind(-len(event_shape) - 1)
        normal = Normal(mean, self.min_scale + softplus(raw), validate_args=False)
        return Normals(normal, len(event_shape), validate_args=False)


@hookimpl
def register_likelihoods(register):
    register("gaussian", Gaussian)
