"""The standard normal prior of a variational autoencoder."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from unibound import Prior, hookimpl


class Gaussian(Prior):
    """p(tau) = N(tau; 0, I).

    Args:
        event_shape: shape [*Z] of one latent.
    """

    posterior: ClassVar[str] = "gaussian"

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape)
        self.register_buffer("mean", torch.zeros(event_shape))

    def distribution(self) -> Distribution:
        """The prior as a distribution over one latent."""
        unit = torch.ones_like(self.mean)
        return Independent(Normal(self.mean, unit, validate_args=False), len(self.event_shape), validate_args=False)

    def log_prob(self, tau: Tensor) -> Tensor:
        return self.distribution().log_prob(tau)

    def sample(self, count: int) -> Tensor:
        return self.distribution().sample((count,))


@hookimpl
def register_priors(register):
    register("gaussian", Gaussian)
