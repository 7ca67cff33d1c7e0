"""Levels, such as the 256 of an image, as reals that were rounded: logistic ones, and mixtures of these."""

import math

import attrs
import torch
from attrs.validators import ge, gt
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import softplus

from unibound import Likelihood, hookimpl, support
from unibound.distributions.levels import RoundedLogistics, image
from unibound.likelihood import Located
from unibound.support import Constraint


@attrs.frozen
class DiscretizedLogistic(Located):
    """Every element is one of n levels from 0 to 1: a logistic variable, rounded.

    The network's two outputs are the location on the scale from -1 to 1, and the scale before a softplus.

    Args:
        levels: how many there are, n.
        min_scale: smallest scale; e^-7, as is usual, is an eighth of the step between 256 levels.

    Source: Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, "Improved variational inference with inverse
        autoregressive flow" (2016), https://arxiv.org/abs/1606.04934
    """

    levels: int = attrs.field(default=256, validator=ge(2))
    min_scale: float = attrs.field(default=math.exp(-7), validator=gt(0.0))

    @property
    def support(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return support.levels(self.levels)

    def start(self, mean: Tensor) -> Tensor:
        return super().start(2 * mean - 1)

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        flat = outputs.flatten(-len(event_shape)).unsqueeze(-2).unsqueeze(-2)  # [..., 2, 1, 1, P]
        location, raw = flat.unbind(-4)
        alone = torch.zeros_like(location[..., 0, :])  # the one component, and of one channel [..., 1, P]
        scale = self.min_scale + softplus(raw)
        return RoundedLogistics(alone, location, scale, alone[..., :0, :].unsqueeze(-2), self.levels, event_shape)


@attrs.frozen
class LogisticMixture(Likelihood):
    """Every pixel is of n levels from 0 to 1, by a mixture of rounded logistics whose channels depend on one another.

    An event [C, H, W] is an image of C channels; any other is of one. The network's outputs are, for each pixel, the
    logits of the components, then locations, scales before a softplus, and coefficients of each.

    Args:
        levels: how many there are, n.
        num_components: logistics M in the mixture of a pixel.
        min_scale: smallest scale on the scale from -1 to 1; e^-7, as is usual, is an eighth of the step between 256
            levels.

    Source: Salimans, Karpathy, Chen and Kingma, "PixelCNN++" (2017), https://arxiv.org/abs/1701.05517
    """

    levels: int = attrs.field(default=256, validator=ge(2))
    num_components: int = attrs.field(default=10, validator=ge(1))
    min_scale: float = attrs.field(default=math.exp(-7), validator=gt(0.0))

    @property
    def support(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return support.levels(self.levels)

    def outputs(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        *_, pixels = image(event_shape)
        return (self.num_components * sum(self._numbers(event_shape)), *pixels)

    def start(self, mean: Tensor) -> Tensor:
        channels, pixels = image(tuple(mean.shape))
        begin = mean.new_zeros(sum(self._numbers(tuple(mean.shape))), *pixels)
        begin[1 : 1 + channels] = 2 * mean.reshape(channels, *pixels) - 1
        return begin.repeat(self.num_components, *[1] * len(pixels))

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        _, pixels = image(event_shape)
        lead = outputs.shape[: outputs.dim() - len(pixels) - 1]
        flat = outputs.reshape(*lead, self.num_components, sum(self._numbers(event_shape)), -1)  # [..., M, numbers, P]
        logits, location, raw, coefficients = flat.split(self._numbers(event_shape), -2)
        log_weights = logits.squeeze(-2).log_softmax(-2)  # [..., M, P]
        scale = self.min_scale + softplus(raw)
        return RoundedLogistics(log_weights, location, scale, coefficients, self.levels, event_shape)

    def _numbers(self, event_shape: tuple[int, ...]) -> list[int]:
        """How many logits, locations, scales and coefficients one component of a pixel has."""
        channels, _ = image(event_shape)
        return [1, channels, channels, channels * (channels - 1) // 2]


@hookimpl
def register_likelihoods(register):
    register("discretized_logistic", DiscretizedLogistic)
    register("logistic_mixture", LogisticMixture)
