"""A normal prior: the standard one of a variational autoencoder, or a learned one."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    MultivariateNormal,
    Normal,
    ReshapeTransform,
    TransformedDistribution,
)

from unibound import Prior, hookimpl
from unibound.distributions import Normals
from unibound.support import real


class Gaussian(Prior):
    """p(tau) = N(tau; m, L L'), at first N(0, I).

    A learned L is lower triangular with a positive diagonal, so that every covariance can be had.

    Args:
        event_shape: shape [*Z] of one latent.
        covariance: fixed (m = 0 and L = I), diagonal (m and the scales learned) or full (m and L learned).
    """

    support = real

    def __init__(
        self, event_shape: tuple[int, ...], *, covariance: Literal["fixed", "diagonal", "full"] = "fixed"
    ) -> None:
        super().__init__(event_shape)
        self.covariance = covariance
        mean = torch.zeros(event_shape)
        if covariance == "fixed":
            self.register_buffer("mean", mean)
            self.register_buffer("log_scale", torch.zeros(event_shape), persistent=False)
        else:
            self.mean = nn.Parameter(mean)
            self.log_scale = nn.Parameter(torch.zeros(event_shape))
        if covariance == "full":
            self.below_diagonal = nn.Parameter(torch.zeros(mean.numel(), mean.numel()))

    def distribution(self) -> Distribution:
        """The prior as a distribution over one latent."""
        dims = len(self.event_shape)
        if self.covariance != "full":
            return Normals(Normal(self.mean, self.log_scale.exp(), validate_args=False), dims, validate_args=False)
        tril = self.below_diagonal.tril(-1) + self.log_scale.flatten().exp().diag()  # [Z, Z]
        flat = MultivariateNormal(self.mean.flatten(), scale_tril=tril, validate_args=False)
        if dims == 1:
            return flat
        unflatten = ReshapeTransform(flat.event_shape, self.event_shape)
        return TransformedDistribution(flat, unflatten, validate_args=False)

    def log_prob(self, tau: Tensor) -> Tensor:
        return self.distribution().log_prob(tau)

    def sample(self, count: int) -> Tensor:
        return self.distribution().sample((count,))


@hookimpl
def register_priors(register):
    register("gaussian", Gaussian)
