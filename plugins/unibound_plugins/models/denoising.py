"""A fixed corruption as q(tau | x), and a network that undoes it as p(x | tau)."""

import math
from itertools import pairwise
from typing import Literal

import attrs
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from unibound import Directed, Generator, Inference, JointBound, Likelihood, Model, Prior, UsageError, hookimpl
from unibound.distributions import Bits
from unibound.support import boolean, real, require, require_within

Kind = Literal["masking", "salt_and_pepper", "gaussian"]
NEVER = -1000.0  # the logit of a bit that is never drawn: its sigmoid is 0, its log-probability finite


class Corruption(Inference):
    """q(tau | x): the datum with noise. It has no parameters."""

    def __init__(self, kind: Kind, level: float, event_dims: int) -> None:
        super().__init__()
        self.kind, self.level, self.event_dims = kind, level, event_dims

    def forward(self, x: Tensor) -> Distribution:
        if self.kind == "gaussian":
            return Independent(Normal(x, self.level, validate_args=False), self.event_dims, validate_args=False)
        require(boolean, x, f"denoising by {self.kind}")
        off = self.level if self.kind == "masking" else self.level / 2  # probability that a 1 is lost
        keep = math.log1p(-off) - math.log(off)
        logits = torch.full_like(x, NEVER if self.kind == "masking" else -keep)
        return Bits(logits.masked_fill(x > 0.5, keep), self.event_dims)


class Denoiser(Generator):
    """p(x | tau), by a fully connected network."""

    def __init__(self, hidden: tuple[int, ...], likelihood: Likelihood, x_shape: torch.Size) -> None:
        super().__init__()
        self.likelihood, self.x_shape = likelihood, x_shape
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise([x_shape.numel(), *hidden, math.prod(likelihood.outputs(x_shape))]):
            layers += [nn.Linear(fan_in, fan_out), nn.ELU()]
        self.network = nn.Sequential(*layers[:-1])

    def forward(self, tau: Tensor) -> Distribution:
        flat = tau.flatten(-len(self.x_shape))  # [..., X]
        outputs = self.network(flat).view(*flat.shape[:-1], *self.likelihood.outputs(self.x_shape))
        return self.likelihood(outputs, self.x_shape)


@attrs.frozen
class Denoising(Model):
    """A denoising autoencoder: tau is the datum corrupted, and p(x | tau) reconstructs it.

        masking          a 1 becomes 0 with probability `level`; a 0 stays
        salt_and_pepper  every bit is replaced with probability `level`, by 0 or 1 evenly
        gaussian         tau ~ N(x, level^2)

    The prior that goes with it is `convolved`, the distribution of corrupted training data. With masking,
    corrupted data that no training datum covers are impossible under it, so held-out data come out
    thousands of nats worse; salt_and_pepper rules out nothing.

    Args:
        corruption: what q does to data; the first two are for bits.
        level: how much of it.
        hidden: widths of the generator's hidden layers.

    Source: Vincent, Larochelle, Bengio and Manzagol, "Extracting and composing robust features with
    denoising autoencoders" (2008), https://www.cs.toronto.edu/~larocheh/publications/icml-2008-denoising-autoencoders.pdf
    """

    corruption: Kind = "salt_and_pepper"
    level: float = attrs.field(default=0.3, validator=attrs.validators.gt(0.0))
    hidden: tuple[int, ...] = attrs.field(
        default=(200,), validator=attrs.validators.deep_iterable(attrs.validators.ge(1))
    )

    def __attrs_post_init__(self) -> None:
        if self.corruption != "gaussian" and self.level >= 1:
            raise UsageError(f"denoising: with {self.corruption}, level must be below 1, not {self.level}")

    def prior_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return x_shape

    def assemble(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        over = real if self.corruption == "gaussian" else boolean
        cure = "use prior convolved, which is over whatever q is"
        require_within(over, f"tau, by {self.corruption},", prior.support, "the prior is", cure)
        inference = Corruption(self.corruption, self.level, x_mean.dim())
        return JointBound(inference, Directed(prior, Denoiser(self.hidden, likelihood, x_mean.shape)))


@hookimpl
def register_models(register):
    register("denoising", Denoising)
