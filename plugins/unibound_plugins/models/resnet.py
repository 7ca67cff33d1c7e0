"""Residual convolutional networks on both sides, for images."""

import math
from itertools import pairwise

import attrs
import torch
from attrs.validators import deep_iterable, ge, lt, min_len
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.utils.parametrizations import weight_norm

from unibound import Directed, Generator, Inference, JointBound, Likelihood, Model, Prior, UsageError, hookimpl


class Block(nn.Module):
    """x + f(x) with f = conv(ELU(conv(ELU(x)))) [N, C, H, W]; a 1 x 1 convolution of x where shapes change."""

    def __init__(self, maps_in: int, maps_out: int, stride: int, dropout: float) -> None:
        super().__init__()
        layers = [nn.ELU(), conv(maps_in, maps_out, 3, stride), nn.ELU(), conv(maps_out, maps_out, 3)]
        if dropout > 0:
            layers.insert(3, nn.Dropout(dropout))
        self.residual = nn.Sequential(*layers)
        same = maps_in == maps_out and stride == 1
        self.stride = stride
        self.shortcut = nn.Identity() if same else conv(maps_in, maps_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        # On one CPU thread a step of 500 images of 28 x 28 takes 2.8 s in this layout, and 4.6 s with maps outermost.
        x = x.contiguous(memory_format=torch.channels_last)
        # Pixels are left out before the 1 x 1 convolution: some processors crash on the gradient of a strided one.
        return self.shortcut(x[..., :: self.stride, :: self.stride]) + self.residual(x)


def conv(maps_in: int, maps_out: int, kernel: int, stride: int = 1) -> nn.Module:
    """A weight-normalized convolution that leaves an edge of n pixels ceil(n / stride) long."""
    return weight_norm(nn.Conv2d(maps_in, maps_out, kernel, stride, padding=kernel // 2))


def dense(fan_in: int, fan_out: int) -> nn.Module:
    """A weight-normalized linear layer."""
    return weight_norm(nn.Linear(fan_in, fan_out))


class ResNetInference(Inference):
    """q(tau | x) from the centered image."""

    x_mean: Tensor

    def __init__(self, network: nn.Module, posterior: Likelihood, tau_shape: tuple[int, ...], x_mean: Tensor):
        super().__init__()
        self.network, self.posterior, self.tau_shape = network, posterior, tuple(tau_shape)
        self.register_buffer("x_mean", x_mean.clone())

    def forward(self, x: Tensor) -> Distribution:
        centered = x - self.x_mean
        lead = centered.shape[: centered.dim() - self.x_mean.dim()]
        channels = self.x_mean.shape[0] if self.x_mean.dim() == 3 else 1
        outputs = self.network(centered.reshape(-1, channels, *centered.shape[-2:]))  # of images [N, C, H, W]
        return self.posterior(outputs.view(*lead, *self.posterior.outputs(self.tau_shape)), self.tau_shape)


class ResNetGenerator(Generator):
    """p(x | tau): what the network says, added to what is learned of all images, which begins at their mean.

    A convolution has one bias for all pixels. A mean image that the latents have to draw makes constants of them.
    """

    def __init__(self, network: nn.Module, likelihood: Likelihood, latent_dims: int, x_mean: Tensor) -> None:
        super().__init__()
        self.network, self.likelihood = network, likelihood
        self.latent_dims, self.x_shape = latent_dims, tuple(x_mean.shape)
        self.shared = nn.Parameter(likelihood.start(x_mean))  # [*outputs]

    def forward(self, tau: Tensor) -> Distribution:
        flat = tau.flatten(-self.latent_dims)  # [..., Z]
        outputs = self.network(flat.reshape(-1, flat.shape[-1]))  # [N, maps, H, W]
        outputs = outputs.reshape(*flat.shape[:-1], *self.shared.shape) + self.shared
        return self.likelihood(outputs, self.x_shape)


@attrs.frozen
class ResNet(Model):
    """Residual q(tau | x) and p(x | tau) of images [H, W] or [C, H, W], with weight and no batch normalization.

    Inference has a stage for each of `maps`: a block of stride 2, which halves the image, and one of stride 1;
    then a layer of `hidden` units. The generator is its mirror, and doubles the image by nearest neighbors
    before each stage. A block is x + conv(ELU(conv(ELU(x)))) with kernels of 3 x 3.

    Nearly all of a training step goes into the K * B images of the generator, for one of 28 x 28 pixels 45 million
    multiplications forward and twice as many back: on a CPU a hundred times the cost of `mlp`, and half of that in
    mixed precision.

    Args:
        num_latents: elements of tau.
        maps: feature maps of each stage of the inference network; the generator has them reversed.
        hidden: width of the layer between the images and tau, on both sides.
        dropout: fraction left out of what is between the convolutions of a block, in each training step.

    Source: Hu and Salakhutdinov, "Learning deep generative models with discrete latent variables" (2018); He, Zhang,
    Ren and Sun, "Identity mappings in deep residual networks" (2016), https://arxiv.org/abs/1603.05027, for the block;
    Salimans and Kingma, "Weight normalization" (2016), https://arxiv.org/abs/1602.07868.
    """

    num_latents: int = attrs.field(default=200, validator=ge(1))
    maps: tuple[int, ...] = attrs.field(default=(25, 50, 50), validator=[min_len(1), deep_iterable(ge(1))])
    hidden: int = attrs.field(default=200, validator=ge(1))
    dropout: float = attrs.field(default=0.0, validator=[ge(0.0), lt(1.0)])

    def prior_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.num_latents,)

    def assemble(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        shape, tau_shape = tuple(x_mean.shape), tuple(prior.event_shape)
        latents = math.prod(tau_shape)
        sizes = self._sizes(shape)
        channels, features = shape[0] if len(shape) == 3 else 1, self.maps[-1] * sizes[-1][0] * sizes[-1][1]

        up: list[nn.Module] = []
        for maps_in, maps_out in pairwise((channels, *self.maps)):
            up += [Block(maps_in, maps_out, 2, self.dropout), Block(maps_out, maps_out, 1, self.dropout)]
        up += [nn.ELU(), nn.Flatten(), dense(features, self.hidden), nn.ELU()]
        up.append(dense(self.hidden, math.prod(posterior.outputs(tau_shape))))

        down: list[nn.Module] = [dense(latents, self.hidden), nn.ELU(), dense(self.hidden, features)]
        down.append(nn.Unflatten(1, (self.maps[-1], *sizes[-1])))
        reverse = self.maps[::-1]
        for (maps_in, maps_out), size in zip(pairwise((reverse[0], *reverse)), sizes[-2::-1], strict=True):
            down += [nn.Upsample(size), Block(maps_in, maps_out, 1, self.dropout)]
            down.append(Block(maps_out, maps_out, 1, self.dropout))
        down += [nn.ELU(), conv(reverse[-1], math.prod(likelihood.outputs(shape)) // (shape[-2] * shape[-1]), 3)]

        generator = ResNetGenerator(nn.Sequential(*down), likelihood, len(tau_shape), x_mean)
        inference = ResNetInference(nn.Sequential(*up), posterior, tau_shape, x_mean)
        return JointBound(inference, Directed(prior, generator))

    def _sizes(self, x_shape: tuple[int, ...]) -> list[tuple[int, int]]:
        """Height and width of an image, and after each stage. Raises UsageError for what is no image, or too small."""
        words, stages = " x ".join(map(str, x_shape)), len(self.maps)
        if len(x_shape) not in (2, 3):
            raise UsageError(f"resnet needs images [H, W] or [C, H, W], but a datum is of shape [{words}]; use mlp")
        if len(x_shape) == 3 and x_shape[-1] <= 4 < x_shape[0]:
            raise UsageError(f"resnet needs channels in front, but a datum is of shape [{words}]; give [C, H, W]")
        sizes = [(x_shape[-2], x_shape[-1])]
        for _ in range(stages):
            height, width = sizes[-1]
            sizes.append(((height + 1) // 2, (width + 1) // 2))
        if min(sizes[-2]) < 2:
            raise UsageError(
                f"resnet with {stages} maps halves an image {stages} times, but one of {words} is too small for it; "
                "use fewer maps, or mlp"
            )
        return sizes


@hookimpl
def register_models(register):
    register("resnet", ResNet)
