"""Fully connected networks on both sides, the generator the mirror of the inference network."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import attrs
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from unibound import Directed, Generator, Inference, JointBound, Likelihood, Model, Prior, hookimpl

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"elu": nn.ELU, "relu": nn.ReLU, "tanh": nn.Tanh}


def stack(widths: list[int], activation: str, dropout: float) -> nn.Sequential:
    """Linear layers of the given widths with an activation and dropout between them, none after the last."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), ACTIVATIONS[activation]()]
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers[: -2 if dropout > 0 else -1])


class MLPInference(Inference):
    """q(tau | x) from the centered datum."""

    x_mean: Tensor

    def __init__(self, network: nn.Module, posterior: Likelihood, tau_shape: tuple[int, ...], x_mean: Tensor) -> None:
        super().__init__()
        self.network, self.posterior, self.tau_shape = network, posterior, tuple(tau_shape)
        self.x_dims = x_mean.dim()
        self.register_buffer("x_mean", x_mean.flatten())

    def forward(self, x: Tensor) -> Distribution:
        flat = x.flatten(-self.x_dims) - self.x_mean  # [..., X]
        outputs = self.network(flat).view(*flat.shape[:-1], *self.posterior.outputs(self.tau_shape))
        return self.posterior(outputs, self.tau_shape)


class MLPGenerator(Generator):
    """p(x | tau)."""

    def __init__(self, network: nn.Module, likelihood: Likelihood, latent_dims: int, x_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.likelihood, self.latent_dims, self.x_shape = network, likelihood, latent_dims, tuple(x_shape)

    def forward(self, tau: Tensor) -> Distribution:
        flat = tau.flatten(-self.latent_dims)  # [..., Z]
        outputs = self.network(flat).view(*flat.shape[:-1], *self.likelihood.outputs(self.x_shape))
        return self.likelihood(outputs, self.x_shape)


@attrs.frozen
class MLP(Model):
    """Fully connected q(tau | x) and p(x | tau).

    Args:
        num_latents: elements of tau; by default 20, or one for eight elements of a datum where that is more, and 200 at
            most: q is certain of every one of a few latents that have to tell many data apart.
        hidden: widths of the inference network's hidden layers.
        generator_hidden: widths of the generator's, from the latents to the data; by default those above, reversed.
        activation: nonlinearity between layers.
        dropout: fraction of hidden units left out in each training step, on both sides,
        generator_dropout: unless the generator has its own here.
    """

    num_latents: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(1)))
    hidden: tuple[int, ...] = attrs.field(
        default=(200, 200), validator=attrs.validators.deep_iterable(attrs.validators.ge(1))
    )
    generator_hidden: tuple[int, ...] | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(attrs.validators.deep_iterable(attrs.validators.ge(1))),
    )
    activation: Literal["elu", "relu", "tanh"] = "elu"
    dropout: float = attrs.field(default=0.2, validator=[attrs.validators.ge(0.0), attrs.validators.lt(1.0)])

    generator_dropout: float | None = attrs.field(
        default=None,
        validator=attrs.validators.optional([attrs.validators.ge(0.0), attrs.validators.lt(1.0)]),
    )

    def prior_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.num_latents or min(max(20, math.prod(x_shape) // 8), 200),)

    def assemble(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        x_shape, tau_shape = tuple(x_mean.shape), tuple(prior.event_shape)
        middle = self.hidden[::-1] if self.generator_hidden is None else self.generator_hidden
        dropout = self.dropout if self.generator_dropout is None else self.generator_dropout
        up = [x_mean.numel(), *self.hidden, math.prod(posterior.outputs(tau_shape))]
        down = [math.prod(tau_shape), *middle, math.prod(likelihood.outputs(x_shape))]
        inference = stack(up, self.activation, self.dropout)
        generator = stack(down, self.activation, dropout)
        with torch.no_grad():  # what all data share, latents need not say
            generator[-1].get_parameter("bias").copy_(likelihood.start(x_mean).flatten())
        return JointBound(
            MLPInference(inference, posterior, tau_shape, x_mean),
            Directed(prior, MLPGenerator(generator, likelihood, len(tau_shape), x_shape)),
        )


@hookimpl
def register_models(register):
    register("mlp", MLP)
