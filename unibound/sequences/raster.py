"""Images that are predicted row by row, by convolutions that see what lies before: the net of PixelCNN.

Shapes: C channels, H rows and W columns of an image, I images, N numbers that are said of a pixel. A pixel sees by a
kernel of R rows above it, and its own. Everything is in nats.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import conv2d, pad

from unibound import support
from unibound.distributions.levels import MAX_CHANNELS
from unibound.draws import Drawn, draw
from unibound.errors import UsageError
from unibound.likelihood import Likelihood
from unibound.support import Constraint

FIRST, LATER = 3, 1
"""Rows that the first convolution reaches upwards, and those after it."""


class Before(nn.Module):
    """A convolution that sees, of what is around a pixel, R rows above it and what lies to its left.

    Args:
        maps_in: of what it sees.
        maps_out: of what it makes.
        reach: R, and columns on either side.
        itself: see the pixel, too (mask B): right for units, which know of no pixel but earlier ones. Of pixels their
            own must stay unseen (mask A).
    """

    mask: Tensor

    def __init__(self, maps_in: int, maps_out: int, reach: int, *, itself: bool) -> None:
        super().__init__()
        self.reach = reach
        mask = torch.ones(reach + 1, 2 * reach + 1)
        mask[-1, reach + itself :] = 0
        scale = 1 / math.sqrt(maps_in * mask.sum().clamp(min=1).item())
        self.weight = nn.Parameter(scale * (2 * torch.rand(maps_out, maps_in, *mask.shape) - 1))
        self.bias = nn.Parameter(torch.zeros(maps_out))
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Map maps [..., M, H, W] to [..., M', H, W]."""
        seen = pad(maps.reshape(-1, *maps.shape[-3:]), (self.reach, self.reach, self.reach, 0))
        made = conv2d(seen, self.weight * self.mask, self.bias)
        return made.view(*maps.shape[:-3], *made.shape[1:])

    def blank(self, count: int, height: int, width: int) -> Tensor:
        """What is seen of images before anything is known of them [I, M, R + H, 2 R + W]."""
        rows, columns = height + self.reach, width + 2 * self.reach
        return self.weight.new_zeros(count, self.weight.shape[1], rows, columns)

    def at(self, seen: Tensor, row: int, column: int, units: Tensor) -> Tensor:
        """Put the units of a pixel [I, M] into what is seen, and make what there is at that pixel of it [I, M'].

        What comes later is zero there, so that no mask is needed.
        """
        seen[:, :, row + self.reach, column + self.reach] = units
        around = seen[:, :, row : row + self.reach + 1, column : column + 2 * self.reach + 1]
        return around.flatten(1) @ self.weight.flatten(1).T + self.bias


Apply = Callable[[Before, Tensor], Tensor]
"""What applies a layer: to whole images, or to a pixel of them."""


class Block(nn.Module):
    """u + f(u), f(u) = mix(ReLU(see(ReLU(u)))): see is a convolution, mix one of 1 x 1."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.see, self.mix = Before(maps, maps, LATER, itself=True), Before(maps, maps, 0, itself=True)

    def forward(self, units: Tensor, apply: Apply) -> Tensor:
        return units + apply(self.mix, apply(self.see, units.relu()).relu())


class Raster(nn.Module):
    """Masked convolutions over an image, whose pixels are predicted row by row: the net of PixelCNN.

    What it says of a pixel depends on the pixels before it, in all of their channels, and on nothing else. A context
    shifts the maps after the first convolution, the same at every pixel, and each output: `hidden` [..., maps] and
    `output` [..., N, H, W], or nothing. Of the rows above, no pixel sees what lies further to the right than kernels
    reach, the blind spot of such nets. A draw computes every unit once, from the few it sees: together they cost a
    single pass.

    Args:
        channels, height, width: C, H and W of an image.
        outputs: numbers N that are said of a pixel.
        maps: of all hidden layers.
        blocks: residual blocks between the first convolution, of 4 x 7, and the outputs.
        scale: by what the values of pixels are multiplied before they are seen.

    Source: Van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel recurrent neural networks" (2016),
    https://arxiv.org/abs/1601.06759; theirs narrow the maps inside a block, and mask channels as well.
    """

    def __init__(
        self, channels: int, height: int, width: int, outputs: int, maps: int, blocks: int, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.height, self.width, self.scale = height, width, scale
        self.first = Before(channels, maps, FIRST, itself=False)
        self.blocks = nn.ModuleList(Block(maps) for _ in range(blocks))
        self.last = Before(maps, outputs, 0, itself=True)

    @property
    def size(self) -> int:
        """Numbers that are said of an image, N H W."""
        return self.last.weight.shape[0] * self.height * self.width

    def forward(self, images: Tensor, hidden: Tensor | None = None, output: Tensor | None = None) -> Tensor:
        """Map images [..., C, H, W] to what is said of each pixel [..., N, H, W], given those before it."""
        shifts = None if hidden is None else hidden[..., None, None]
        made = self._through(lambda layer, maps: layer(maps), self.scale * images, shifts)
        return made if output is None else made + output

    def draw(
        self, count: int, choose: Callable[[Tensor], Tensor], hidden: Tensor | None, output: Tensor | None
    ) -> Tensor:
        """Draw images [I, C, H, W], each pixel once, without gradients.

        Args:
            count: of images, I.
            choose: draws a pixel of each image [I, C] by what is said of it [I, N].
            hidden, output: contexts of each image, or nothing.
        """
        layers = [layer for layer in self.modules() if isinstance(layer, Before)]
        seen = {layer: layer.blank(count, self.height, self.width) for layer in layers}
        channels = self.first.weight.shape[1]
        images = self.first.weight.new_zeros(count, channels, self.height, self.width)
        unknown = images.new_zeros(count, channels)
        for row in range(self.height):
            for column in range(self.width):

                def apply(layer: Before, units: Tensor, row: int = row, column: int = column) -> Tensor:
                    return layer.at(seen[layer], row, column, units)

                said = self._through(apply, unknown, hidden)
                pixel = choose(said if output is None else said + output[..., row, column])
                images[:, :, row, column] = pixel
                seen[self.first][:, :, row + FIRST, column + FIRST] = self.scale * pixel
        return images

    def _through(self, apply: Apply, units: Tensor, hidden: Tensor | None) -> Tensor:
        """From pixels to what is said of them."""
        units = apply(self.first, units)
        if hidden is not None:
            units = units + hidden
        for block in self.blocks:
            units = block(units, apply)
        return apply(self.last, units.relu())


class Pixels(Drawn):
    """The distribution of an image whose pixels are predicted row by row: batch shape [...], event shape [*X].

        p(x) = prod_i p(x_i | x_<i),   x_i the channels of pixel i

    Args:
        raster: what predicts.
        likelihood: how that is read as a distribution of one pixel, of all its channels.
        event_shape: the shape of an image [*X], [H, W] or [C, H, W].
        hidden: what a context does to the hidden maps [..., maps], or nothing.
        output: what it does to what is said of pixels [..., N, H, W], or nothing.
    """

    has_rsample = False

    def __init__(
        self,
        raster: Raster,
        likelihood: Likelihood,
        event_shape: Sequence[int],
        hidden: Tensor | None = None,
        output: Tensor | None = None,
    ) -> None:
        self.raster, self.likelihood, self.hidden, self.output = raster, likelihood, hidden, output
        leads = [] if hidden is None else [hidden.shape[:-1]]
        leads += [] if output is None else [output.shape[:-3]]
        super().__init__(torch.broadcast_shapes(*leads), torch.Size(event_shape), validate_args=False)

    @staticmethod
    def net(likelihood: Likelihood, event_shape: Sequence[int], maps: int, blocks: int) -> Raster:
        """A net for images of shape [*X], each pixel of which a likelihood reads.

        Raises:
            UsageError: data of another shape, or more channels than an image has.
        """
        shape = tuple(event_shape)
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] > MAX_CHANNELS):
            last = len(shape) == 3 and shape[-1] <= MAX_CHANNELS
            cure = "move the channels to the front" if last else "use a net for vectors"
            raise UsageError(
                f"pixels are predicted of images [H, W], or [C, H, W] of at most {MAX_CHANNELS} channels, but a datum "
                f"is of shape [{' x '.join(map(str, shape))}]; {cure}"
            )
        pixel = pixel_shape(shape)
        outputs, listed = math.prod(likelihood.outputs(pixel)), support.values(likelihood.support)
        scale = 1.0 if listed is None else 1 / max(map(abs, listed))
        height, width = shape[-2:]
        return Raster(math.prod(pixel), height, width, outputs, maps, blocks, scale)

    @property
    def support(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.likelihood.support

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value) [...] in nats; value broadcasts against the batch."""
        images = value.unsqueeze(-3) if len(self.event_shape) == 2 else value  # [..., C, H, W]
        said = self.raster(images, self.hidden, self.output).movedim(-3, -1)  # [..., H, W, N]
        pixels = images.movedim(-3, -1).unflatten(-1, pixel_shape(self.event_shape))  # [..., H, W, *pixel]
        return self._of_each(said).log_prob(pixels).sum((-2, -1))

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        if reparameterized:
            raise UsageError("pixels that are predicted one by one have no reparameterized draws; use vimco")
        lead, log_p = (count, *self.batch_shape), []

        def choose(said: Tensor) -> Tensor:
            pixel, log_pixel = draw(self._of_each(said), 1)
            log_p.append(log_pixel.squeeze(0))
            return pixel.flatten(2).squeeze(0)

        with torch.no_grad():
            hidden = None if self.hidden is None else self.hidden.expand(*lead, -1).flatten(0, -2)
            output = None if self.output is None else self.output.expand(*lead, -1, -1, -1).flatten(0, -4)
            images = self.raster.draw(torch.Size(lead).numel(), choose, hidden, output)
        value = images.view(*lead, *self.event_shape)
        return value, self.log_prob(value) if torch.is_grad_enabled() else sum(log_p[1:], log_p[0]).view(lead)

    def _of_each(self, said: Tensor) -> Distribution:
        """Of one pixel, by what is said of it [..., N]."""
        pixel = pixel_shape(self.event_shape)
        return self.likelihood(said.unflatten(-1, self.likelihood.outputs(pixel)), pixel)


def pixel_shape(event_shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of one pixel of an image [H, W] or [C, H, W], as an image."""
    return (*event_shape[:-2], 1, 1)
