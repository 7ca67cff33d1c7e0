"""How data become noise, step by step, and what is known of a step before when its end and its datum are.

Shapes: D elements of a datum, T steps, numbered from 1. Everything is in nats.
"""

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence
from torch.nn.functional import logsigmoid, softplus

from unibound.distributions import Bits
from unibound.errors import UsageError


class Noise(nn.Module, ABC):
    """How data become noise: q(x_t | x_{t-1}) in T steps, each of which keeps a share 1 - beta_t.

    Steps t are whole numbers from 1 to T in tensors [...]; what is made of data [..., D] has one of them for each.

    Args:
        betas: beta_1 .. beta_T, each in (0, 1) [T].
    """

    betas: Tensor
    kept: Tensor

    def __init__(self, betas: Tensor) -> None:
        super().__init__()
        self.register_buffer("betas", betas, persistent=False)
        self.register_buffer("kept", torch.cat([betas.new_ones(1), (1 - betas).cumprod(0)]), persistent=False)

    def __len__(self) -> int:
        return len(self.betas)

    def beta(self, t: Tensor) -> Tensor:
        """beta_t [..., 1]."""
        return self.betas[t - 1].unsqueeze(-1)

    def share(self, t: Tensor) -> Tensor:
        """What is left of x_0 in x_t [..., 1]: the product of 1 - beta up to t, and 1 for t = 0."""
        return self.kept[t].unsqueeze(-1)

    def leap(self, s: int, t: int) -> Self:
        """The same in two steps: from x_0 to x_s, and at once to x_t."""
        return type(self)(torch.stack([1 - self.kept[s], 1 - self.kept[t] / self.kept[s]]))

    @abstractmethod
    def step(self, x: Tensor, t: Tensor) -> Distribution:
        """q(x_t | x_{t-1} = x), of vectors."""

    @abstractmethod
    def at(self, x: Tensor, t: Tensor) -> Distribution:
        """q(x_t | x_0 = x), of vectors."""

    @abstractmethod
    def back(self, noisy: Tensor, x: Tensor, t: Tensor) -> Distribution:
        """q(x_{t-1} | x_t, x_0 = x) for t > 1, of vectors."""

    @abstractmethod
    def guess(self, noisy: Tensor, x: Distribution, t: Tensor) -> Distribution:
        """p(x_{t-1} | x_t) for t > 1, of vectors, by what x_0 is taken to be, given x_t: a distribution of data."""

    @abstractmethod
    def own(self, noisy: Tensor, t: Tensor) -> Tensor:
        """What an element of x_t says by itself of x_0, to be added to what a network says [..., D]."""

    @abstractmethod
    def divergence(self, q: Distribution, p: Distribution) -> Tensor:
        """KL(q || p) of what `back` and `guess` or another net made [...], nats."""


class Binomial(Noise):
    """Each bit is kept, or with probability beta drawn anew as a fair coin.

    Source: Sohl-Dickstein, Weiss, Maheswaranathan and Ganguli, "Deep unsupervised learning using nonequilibrium
    thermodynamics" (2015), https://arxiv.org/abs/1503.03585
    """

    def step(self, x: Tensor, t: Tensor) -> Distribution:
        return Bits((2 * x - 1) * sure(1 - self.beta(t)))

    def at(self, x: Tensor, t: Tensor) -> Distribution:
        return Bits((2 * x - 1) * sure(self.share(t)))

    def back(self, noisy: Tensor, x: Tensor, t: Tensor) -> Distribution:
        return Bits((2 * x - 1) * sure(self.share(t - 1)) + (2 * noisy - 1) * sure(1 - self.beta(t)))

    def guess(self, noisy: Tensor, x: Distribution, t: Tensor) -> Distribution:
        if not isinstance(x, Bits):
            raise UsageError(f"a diffusion of bits takes x_0 for independent bits, not {type(x).__name__}")
        logits = x.logits.flatten(-len(x.event_shape))
        before, now = sure(self.share(t - 1)), (2 * noisy - 1) * sure(1 - self.beta(t))
        one, zero = logsigmoid(logits), logsigmoid(-logits)
        up = torch.logaddexp(one + logsigmoid(now + before), zero + logsigmoid(now - before))
        down = torch.logaddexp(one + logsigmoid(-now - before), zero + logsigmoid(before - now))
        return Bits(up - down)

    def own(self, noisy: Tensor, t: Tensor) -> Tensor:
        return (2 * noisy - 1) * sure(self.share(t))

    def divergence(self, q: Distribution, p: Distribution) -> Tensor:
        assert isinstance(q, Bits)
        assert isinstance(p, Bits)
        bitwise = q.mean * (q.logits - p.logits) - softplus(q.logits) + softplus(p.logits)
        return bitwise.sum(-1)


class Normals(Noise):
    """Each number shrinks by sqrt(1 - beta), and has noise of variance beta added.

    Source: Ho, Jain and Abbeel, "Denoising diffusion probabilistic models" (2020), https://arxiv.org/abs/2006.11239
    """

    def step(self, x: Tensor, t: Tensor) -> Distribution:
        beta = self.beta(t)
        return normal((1 - beta).sqrt() * x, beta.sqrt())

    def at(self, x: Tensor, t: Tensor) -> Distribution:
        share = self.share(t)
        return normal(share.sqrt() * x, (1 - share).sqrt())

    def back(self, noisy: Tensor, x: Tensor, t: Tensor) -> Distribution:
        beta, share, before = self.beta(t), self.share(t), self.share(t - 1)
        mean = (before.sqrt() * beta * x + (1 - beta).sqrt() * (1 - before) * noisy) / (1 - share)
        return normal(mean, ((1 - before) / (1 - share) * beta).sqrt())

    def guess(self, noisy: Tensor, x: Distribution, t: Tensor) -> Distribution:
        return self.back(noisy, x.mean.flatten(-len(x.event_shape)), t)

    def own(self, noisy: Tensor, t: Tensor) -> Tensor:
        return self.share(t).sqrt() * noisy

    def divergence(self, q: Distribution, p: Distribution) -> Tensor:
        return kl_divergence(q, p)


def sure(share: Tensor) -> Tensor:
    """Logit of a bit that is kept with this probability, and a fair coin otherwise, to be what it was."""
    return ((1 + share) / (1 - share)).log()


def normal(mean: Tensor, scale: Tensor) -> Distribution:
    """Independent normals, as one vector."""
    return Independent(Normal(mean, scale.expand_as(mean), validate_args=False), 1, validate_args=False)
