"""An autoregressive decoder: bits or pixels predicted one after another, each also by what the latents say."""

import math
from itertools import pairwise
from typing import Literal

import attrs
import torch
from attrs.validators import deep_iterable, ge, min_len
from torch import Tensor, nn
from torch.distributions import Distribution

from unibound import Directed, Generator, Inference, JointBound, Likelihood, Model, Prior, UsageError, hookimpl
from unibound.sequences.autoregressive import Predicted
from unibound.sequences.predictor import Masked
from unibound.sequences.raster import Pixels, Raster
from unibound.support import boolean, describe, same


def stack(widths: list[int]) -> nn.Sequential:
    """Linear layers of the given widths, an ELU after each but the last."""
    layers = [module for pair in pairwise(widths) for module in (nn.Linear(*pair), nn.ELU())]
    return nn.Sequential(*layers[:-1])


class DecoderInference(Inference):
    """q(tau | x) from the centered datum."""

    x_mean: Tensor

    def __init__(self, widths: list[int], posterior: Likelihood, shape: tuple[int, ...], x_mean: Tensor) -> None:
        super().__init__()
        self.posterior, self.shape, self.dims = posterior, shape, x_mean.dim()
        self.network = stack([x_mean.numel(), *widths, math.prod(posterior.outputs(shape))])
        self.register_buffer("x_mean", x_mean.flatten())

    def forward(self, x: Tensor) -> Distribution:
        outputs = self.network(x.flatten(-self.dims) - self.x_mean)
        return self.posterior(outputs.view(*outputs.shape[:-1], *self.posterior.outputs(self.shape)), self.shape)


class Context(nn.Module):
    """What tau says to a masked net: shifts of its hidden units, and of its outputs."""

    def __init__(self, num_latents: int, width: int, num_hidden: int, num_outputs: int) -> None:
        super().__init__()
        self.units = stack([num_latents, width, width])
        self.hidden, self.output = nn.Linear(width, num_hidden), nn.Linear(width, num_outputs)

    def forward(self, tau: Tensor) -> tuple[Tensor, Tensor]:
        units = nn.functional.elu(self.units(tau))
        return self.hidden(units), self.output(units)


class VectorGenerator(Generator):
    """p(x | tau) = prod_d p(x_d | x_<d, tau), of bits."""

    order: Tensor

    def __init__(self, predictor: Masked, context: Context, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.predictor, self.context, self.shape = predictor, context, shape
        self.register_buffer("order", torch.arange(math.prod(shape)))

    def forward(self, tau: Tensor) -> Distribution:
        return Predicted(self.predictor, self.order, self.shape, *self.context(tau))


class ImageGenerator(Generator):
    """p(x | tau) = prod_i p(x_i | x_<i, tau), of pixels."""

    def __init__(self, raster: Raster, context: Context, likelihood: Likelihood, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.raster, self.context, self.likelihood, self.shape = raster, context, likelihood, shape

    def forward(self, tau: Tensor) -> Distribution:
        hidden, output = self.context(tau)
        outputs = output.unflatten(-1, (-1, *self.shape[-2:]))
        return Pixels(self.raster, self.likelihood, self.shape, hidden, outputs)


@attrs.frozen
class Decoder(Model):
    """A fully connected q(tau | x), and a p(x | tau) whose elements see those before them, through a masked net.

        p(x | tau) = prod_d p(x_d | x_<d, tau)

    The net is fully connected (MADE), over bits, or of convolutions over an image, row by row (PixelCNN), which predict
    whatever the likelihood is over, pixel by pixel: levels too, grey or in color. Channels of a pixel hang together as
    the likelihood has it: by `logistic_mixture` each depends on those before it, by others they are independent given
    the pixels before. Latents shift its first hidden units, maps in the latter, and each output. Such a p may do
    without them: how many nats they carry is E KL(q(tau | x) || p(tau)), which is what `JointBound.log_weight_terms`
    leaves when the first of its terms is taken off.

    Args:
        num_latents: elements of tau.
        hidden: widths of the inference network's hidden layers.
        net: what predicts: `made` bits of vectors, `pixelcnn` pixels of images [H, W] or [C, H, W].
        made: hidden units of `made`.
        maps: those of `pixelcnn`.
        blocks: its residual blocks.

    Source: Germain, Gregor, Murray and Larochelle, "MADE: Masked autoencoder for distribution estimation" (2015),
    https://arxiv.org/abs/1502.03509; Van den Oord, Kalchbrenner and Kavukcuoglu, "Pixel recurrent neural networks"
    (2016), https://arxiv.org/abs/1601.06759; as decoders Chen et al., "Variational lossy autoencoder" (2017),
    https://arxiv.org/abs/1611.02731
    """

    num_latents: int = attrs.field(default=20, validator=ge(1))
    hidden: tuple[int, ...] = attrs.field(default=(200,), validator=[min_len(1), deep_iterable(ge(1))])
    net: Literal["made", "pixelcnn"] = "made"
    made: int = attrs.field(default=100, validator=ge(1))
    maps: int = attrs.field(default=32, validator=ge(1))
    blocks: int = attrs.field(default=2, validator=ge(0))

    def prior_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.num_latents,)

    def assemble(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        shape = tuple(x_mean.shape)
        generator = self.bits(likelihood, shape) if self.net == "made" else self.pixels(likelihood, shape)
        q = DecoderInference(list(self.hidden), posterior, (self.num_latents,), x_mean)
        return JointBound(q, Directed(prior, generator))

    def bits(self, likelihood: Likelihood, shape: tuple[int, ...]) -> Generator:
        """p(x | tau) of bits [*X]. Raises UsageError for a likelihood over anything else."""
        if not same(likelihood.support, boolean):
            raise UsageError(
                f"decoder predicts bits by made, but the likelihood is over {describe(likelihood.support)}; use "
                "bernoulli, or net pixelcnn for images"
            )
        size = math.prod(shape)
        return VectorGenerator(Masked(size, (self.made,)), self.context(self.made, size), shape)

    def pixels(self, likelihood: Likelihood, shape: tuple[int, ...]) -> Generator:
        """p(x | tau) of images [*X]. Raises UsageError where they are none."""
        raster = Pixels.net(likelihood, shape, self.maps, self.blocks)
        return ImageGenerator(raster, self.context(self.maps, raster.size), likelihood, shape)

    def context(self, num_hidden: int, num_outputs: int) -> Context:
        return Context(self.num_latents, self.hidden[-1], num_hidden, num_outputs)


@hookimpl
def register_models(register):
    register("decoder", Decoder)
