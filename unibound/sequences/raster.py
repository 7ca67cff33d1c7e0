"""Bits of an image that are predicted row by row, by convolutions that see what lies before: the net of PixelCNN.

Shapes: D = H W bits of one image, C maps, N images. A pixel sees by a kernel of R rows above it, and its own.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from unibound.errors import UsageError
from unibound.sequences.predictor import Predictor, toss

FIRST, LATER = 3, 1
"""Rows that the first convolution reaches upwards, and those after it."""


class Before(nn.Module):
    """A convolution that sees, of what is around a pixel, R rows above it and what lies to its left.

    Args:
        maps_in: C of what it sees.
        maps_out: C of what it makes.
        reach: R, and columns on either side.
        itself: see the pixel, too (mask B): right for units, which know of no bit but earlier ones. Of bits their own
            must stay unseen (mask A).
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
        """Map [..., C, H, W] to [..., C', H, W]."""
        seen = pad(maps.reshape(-1, *maps.shape[-3:]), (self.reach, self.reach, self.reach, 0))
        made = conv2d(seen, self.weight * self.mask, self.bias)
        return made.view(*maps.shape[:-3], *made.shape[1:])

    def blank(self, count: int, height: int, width: int) -> Tensor:
        """What is seen of images before anything is known of them [N, C, R + H, 2 R + W]."""
        rows, columns = height + self.reach, width + 2 * self.reach
        return self.weight.new_zeros(count, self.weight.shape[1], rows, columns)

    def at(self, seen: Tensor, row: int, column: int, units: Tensor) -> Tensor:
        """Put the units of a pixel [N, C] into what is seen, and make what there is at that pixel of it [N, C'].

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


class Raster(Predictor):
    """Masked convolutions over an image, whose bits are predicted row by row: the net of PixelCNN.

    A context shifts the maps after the first convolution, the same at every pixel, and each logit. Of the rows above,
    no pixel sees what lies further to the right than kernels reach, the blind spot of such nets. A draw computes
    every unit once, from the few it sees: together they cost a single pass.

    Args:
        height, width: H and W.
        maps: C of all hidden layers, which a context shifts.
        blocks: residual blocks between the first convolution, of 4 x 7, and the logits.

    Source: Van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel recurrent neural networks" (2016),
    https://arxiv.org/abs/1601.06759; theirs narrow the maps inside a block.
    """

    order: Tensor

    def __init__(self, height: int, width: int, maps: int, blocks: int) -> None:
        super().__init__()
        self.num_hidden, self.height, self.width = maps, height, width
        self.first = Before(1, maps, FIRST, itself=False)
        self.blocks = nn.ModuleList(Block(maps) for _ in range(blocks))
        self.last = Before(maps, 1, 0, itself=True)
        self.register_buffer("order", torch.arange(height * width), persistent=False)

    @property
    def size(self) -> int:
        return 2 * (1 + len(self.blocks)) * self.num_hidden * len(self.order)

    def forward(self, bits: Tensor, order: Tensor, hidden: Tensor | None, output: Tensor | None) -> Tensor:
        self._require(order)
        images = bits.unflatten(-1, (1, self.height, self.width))
        shifts = None if hidden is None else hidden[..., None, None]
        logits = self._through(lambda layer, maps: layer(maps), images, shifts).flatten(-3)
        return logits if output is None else logits + output

    def draw(
        self, lead: Sequence[int], order: Tensor, hidden: Tensor | None, output: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        self._require(order)
        layers, count = [layer for layer in self.modules() if isinstance(layer, Before)], torch.Size(lead).numel()
        seen = {layer: layer.blank(count, self.height, self.width) for layer in layers}
        shifts = None if hidden is None else hidden.expand(*lead, -1).flatten(0, -2)
        bits, log_p = self.last.bias.new_zeros(*lead, len(order)), self.last.bias.new_zeros(tuple(lead))
        unknown = bits.new_zeros(count, 1)
        for d in range(len(order)):
            row, column = divmod(d, self.width)

            def apply(layer: Before, units: Tensor, row: int = row, column: int = column) -> Tensor:
                return layer.at(seen[layer], row, column, units)

            logit = self._through(apply, unknown, shifts).view(tuple(lead))
            bit, log_bit = toss(logit if output is None else logit + output[..., d])
            bits[..., d], log_p = bit, log_p + log_bit
            seen[self.first][:, 0, row + FIRST, column + FIRST] = bit.flatten()
        return bits, log_p

    def _through(self, apply: Apply, units: Tensor, hidden: Tensor | None) -> Tensor:
        """From bits to logits."""
        units = apply(self.first, units)
        if hidden is not None:
            units = units + hidden
        for block in self.blocks:
            units = block(units, apply)
        return apply(self.last, units.relu())

    def _require(self, order: Tensor) -> None:
        if not torch.equal(order, self.order):
            raise UsageError("masked convolutions predict bits row by row, in no other ordering")
