"""Pixels of levels, each on its own from a mixture of rounded logistics: what can be said of images without latents."""

import math
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import softplus

from unibound import Prior, UsageError, hookimpl, support
from unibound.distributions.levels import RoundedLogistics, image
from unibound.support import Constraint


class LogisticMixture(Prior):
    """p(tau) = prod_i p_i(tau_i), the pixels independent, each from a mixture of rounded logistics: normalized.

    Every pixel has weights, locations, scales and coefficients of its own; the channels of a pixel depend on one
    another as in the likelihood of that name. With model `identity` its likelihood is exact, and what a model of images
    has to better: what is known of each pixel by itself.

    Args:
        event_shape: shape [*Z]: [C, H, W] an image of C channels, any other of one.
        levels: how many there are, n, from 0 to 1.
        num_components: logistics M in the mixture of a pixel.
        min_scale: smallest scale on the scale from -1 to 1; e^-7, as is usual, is an eighth of the step between 256
            levels.
    Raises:
        UsageError: images of more than 4 channels, or settings that make no mixture.

    Source: Salimans, Karpathy, Chen and Kingma, "PixelCNN++" (2017), https://arxiv.org/abs/1701.05517
    """

    small = MappingProxyType({"levels": 3, "num_components": 2})

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        levels: int = 256,
        num_components: int = 10,
        min_scale: float = math.exp(-7),
    ) -> None:
        super().__init__(event_shape)
        if levels < 2 or num_components < 1 or not min_scale > 0:
            raise UsageError(
                f"logistic_mixture: needs levels, components and a smallest scale above 0, not {levels}, "
                f"{num_components} and {min_scale:g}"
            )
        self.levels, self.min_scale = levels, min_scale
        channels, of_pixels = image(event_shape)
        pixels = math.prod(of_pixels)
        middles = (2 * torch.arange(num_components) + 1) / num_components - 1  # evenly over all levels
        self.logits = nn.Parameter(torch.zeros(num_components, pixels))  # [M, P]
        self.location = nn.Parameter(middles.view(-1, 1, 1).repeat(1, channels, pixels))  # [M, C, P]
        width = torch.tensor(1 / num_components).expm1().log()  # whose softplus is half the way to the next
        self.raw_scale = nn.Parameter(width.repeat(num_components, channels, pixels))
        self.coefficients = nn.Parameter(torch.zeros(num_components, channels * (channels - 1) // 2, pixels))

    @property
    def support(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return support.levels(self.levels)

    @classmethod
    def support_of(cls, *, levels: int = 256, **_: Any) -> Constraint:
        return support.levels(levels)

    def distribution(self) -> Distribution:
        scale = self.min_scale + softplus(self.raw_scale)
        weights, shape = self.logits.log_softmax(0), tuple(self.event_shape)
        return RoundedLogistics(weights, self.location, scale, self.coefficients, self.levels, shape)

    def log_prob(self, tau: Tensor) -> Tensor:
        return self.distribution().log_prob(tau)

    def sample(self, count: int) -> Tensor:
        return self.distribution().sample((count,))


@hookimpl
def register_priors(register):
    register("logistic_mixture", LogisticMixture)
