"""An autoregressive decoder: bits predicted one after another, each also by what the latents say."""

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
from unibound.sequences.predictor import Masked, Predictor
from unibound.sequences.raster import Raster
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


class DecoderGenerator(Generator):
    """p(x | tau) = prod_d p(x_d | x_<d, tau): tau shifts the hidden units, and the logits."""

    order: Tensor

    def __init__(self, num_latents: int, width: int, predictor: Predictor, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.predictor, self.shape, size = predictor, shape, math.prod(shape)
        self.units = stack([num_latents, width, width])
        self.hidden, self.output = nn.Linear(width, predictor.num_hidden), nn.Linear(width, size)
        self.register_buffer("order", torch.arange(size))

    def forward(self, tau: Tensor) -> Distribution:
        units = nn.functional.elu(self.units(tau))
        return Predicted(self.predictor, self.order, self.shape, self.hidden(units), self.output(units))


@attrs.frozen
class Decoder(Model):
    """A fully connected q(tau | x), and a p(x | tau) whose bits see those before them, through a masked net.

        p(x | tau) = prod_d p(x_d | x_<d, tau)

    The net is fully connected (MADE), or of convolutions over an image, row by row (PixelCNN). Latents shift its first
    hidden units, maps in the latter, and each logit. Such a p may do without its latents: how many nats they carry is
    E KL(q(tau | x) || p(tau)), which is what `JointBound.log_weight_terms` leaves when the first of its terms is taken
    off.

    Args:
        num_latents: elements of tau.
        hidden: widths of the inference network's hidden layers.
        net: what predicts bits: `made` for vectors, `pixelcnn` for images of one channel.
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
        if not same(likelihood.support, boolean):
            raise UsageError(
                f"decoder predicts bits, but the likelihood is over {describe(likelihood.support)}; use bernoulli"
            )
        shape = tuple(x_mean.shape)
        generator = DecoderGenerator(self.num_latents, self.hidden[-1], self.predictor(shape), shape)
        q = DecoderInference(list(self.hidden), posterior, (self.num_latents,), x_mean)
        return JointBound(q, Directed(prior, generator))

    def predictor(self, shape: tuple[int, ...]) -> Predictor:
        """What predicts bits of shape [*X]. Raises UsageError where they are no image for `pixelcnn`."""
        if self.net == "made":
            return Masked(math.prod(shape), (self.made,))
        if len(shape) == 2 or (len(shape) == 3 and shape[0] == 1):
            return Raster(*shape[-2:], self.maps, self.blocks)
        words = " x ".join(map(str, shape))
        raise UsageError(f"pixelcnn needs images [H, W] of one channel, but a datum is of shape [{words}]; use made")


@hookimpl
def register_models(register):
    register("decoder", Decoder)
