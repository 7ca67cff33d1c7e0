"""Levels, such as the 256 of an image, as reals that were rounded: mixtures of logistic ones."""

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution
from torch.nn.functional import one_hot, softplus
from torch.types import _size

from unibound import support
from unibound.distributions import Logistic
from unibound.errors import UsageError
from unibound.support import Constraint
from unibound.weights import log1mexp

MAX_CHANNELS = 4
"""What comes in more of them is no image, or one with its channels last."""


def image(event_shape: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Channels of an image [C, H, W], and the shape of its pixels; whatever else is one channel of pixels [*X].

    Raises:
        UsageError: more than 4 channels.
    """
    if len(event_shape) != 3:
        return 1, tuple(event_shape)
    if event_shape[0] > MAX_CHANNELS:
        raise UsageError(
            f"logistic_mixture needs images [C, H, W] of at most {MAX_CHANNELS} channels, but a datum is of shape "
            f"{list(event_shape)}; move the channels to the front"
        )
    return event_shape[0], tuple(event_shape[1:])


class RoundedLogistics(Distribution):
    """Pixels of C channels, each pixel from a mixture of M rounded logistics: batch shape [...], event shape [*X].

    On the scale from -1 to 1, with steps of 2h and h = 1 / (n - 1), a level x has the mass of what rounds to it,

        P(x) = sigmoid((x + h - m) / s) - sigmoid((x - h - m) / s),

    all that is below for the first level, all above for the last. One component is chosen per pixel, and given it a
    channel's location is moved by the channels before it: m_c + sum_{d < c} tanh(a_cd) x_d.

    Args:
        log_weights: log-probabilities of the components of each pixel [..., M, P].
        location: m [..., M, C, P].
        scale: s [..., M, C, P], positive.
        coefficients: a [..., M, C (C - 1) / 2, P], by rows: of the second channel by the first, of the third by the
            first, by the second.
        count: levels n.
        event_shape: shape of an image, of which C x P is the flat form.

    Source: Salimans, Karpathy, Chen and Kingma, "PixelCNN++" (2017), https://arxiv.org/abs/1701.05517. There, masses
        below 1e-5 are replaced by a density, which is no distribution and off by nats; here the logarithm is exact.
    """

    arg_constraints = {}  # noqa: RUF012 - the name torch.distributions looks up  # pyright: ignore

    def __init__(
        self,
        log_weights: Tensor,
        location: Tensor,
        scale: Tensor,
        coefficients: Tensor,
        count: int,
        event_shape: tuple[int, ...],
    ) -> None:
        self.log_weights, self.location, self.scale = log_weights, location, scale
        self.slopes = coefficients.tanh()
        self.count, self.channels = count, location.shape[-2]
        super().__init__(location.shape[:-3], torch.Size(event_shape), validate_args=False)

    @property
    def support(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return support.levels(self.count)

    @property
    def mean(self) -> Tensor:
        """The mean [..., *X] where channels stand alone; raises NotImplementedError where they depend on others."""
        if self.channels > 1:
            raise NotImplementedError("the mean of channels that depend on one another has no closed form")
        half = 1 / (self.count - 1)
        above = torch.zeros_like(self.location)  # sum over levels k from 1 of P(level >= k)
        for step in range(1, self.count):
            above += torch.sigmoid((self.location - (2 * step - 1) * half + 1) / self.scale)
        mean = (self.log_weights.exp().unsqueeze(-2) * above * half).sum(-3)  # [..., 1, P]
        return mean.reshape(*self.batch_shape, *self.event_shape)

    def _located(self, channel: int, before: list[Tensor]) -> Tensor:
        """Location of a channel, given those before it [..., 1, P] or [..., M, P]: [..., M, P]."""
        located, row = self.location[..., channel, :], channel * (channel - 1) // 2
        for other, x in enumerate(before):
            located = located + self.slopes[..., row + other, :] * x
        return located

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            shape = torch.Size(sample_shape)
            choice = Categorical(logits=self.log_weights.mT, validate_args=False).sample(shape)  # [..., P]
            chosen = one_hot(choice, self.log_weights.shape[-2]).mT.to(self.location)  # [..., M, P]
            channels: list[Tensor] = []  # each [..., P]
            for channel in range(self.channels):
                located = self._located(channel, [x.unsqueeze(-2) for x in channels])  # [..., M, P]
                location, scale = ((chosen * of).sum(-2) for of in (located, self.scale[..., channel, :]))
                steps = (Logistic(location, scale).sample() + 1) * (self.count - 1) / 2
                channels.append(2 * steps.round().clamp(0, self.count - 1) / (self.count - 1) - 1)
            x = torch.stack(channels, -2)  # [..., C, P]
            return ((x + 1) / 2).reshape(*shape, *self.batch_shape, *self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value) [...] in nats; value broadcasts against the batch."""
        return self._pixels(value).sum(-1)

    def elements(self, value: Tensor) -> Tensor:
        """log p of each element by itself [..., *X] in nats; UsageError where channels depend on one another."""
        if self.channels > 1:
            raise UsageError("channels depend on one another, so that none may be missing; use discretized_logistic")
        found = self._pixels(value)
        return found.reshape(*found.shape[:-1], *self.event_shape)

    def _pixels(self, value: Tensor) -> Tensor:
        """log p of each pixel [..., P] in nats."""
        lead = value.shape[: value.dim() - len(self.event_shape)]
        level = (value * (self.count - 1)).round().reshape(*lead, 1, self.channels, -1)  # [..., 1, C, P]
        half = 1 / (self.count - 1)
        x = 2 * half * level - 1
        before = list(x.unbind(-2))
        located = [self._located(channel, before[:channel]) for channel in range(self.channels)]
        located = torch.stack(torch.broadcast_tensors(*located), -2)  # [..., M, C, P]
        inverse = 1 / self.scale
        high, low = (x + half - located) * inverse, (x - half - located) * inverse  # [..., M, C, P]
        below, above = -softplus(-high), -softplus(low)  # log of the mass below the upper edge, above the lower one
        between = log1mexp(-2 * half * inverse) + below + above  # no difference of nearly equal masses
        log_p = torch.where(level == 0, below, torch.where(level == self.count - 1, above, between))
        return (self.log_weights + log_p.sum(-2)).logsumexp(-2)
