"""Trajectories from a datum to noise, and back: what diffusion models are made of.

Shapes: D elements of a datum [*X], T steps, numbered from 1. Everything is in nats.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence
from torch.nn.functional import logsigmoid, softplus

from unibound.distributions import Bits
from unibound.draws import Drawn
from unibound.errors import UsageError
from unibound.generation import Generation
from unibound.networks import Inference
from unibound.prior import Prior


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


class Noisier(Inference):
    """q(x_t | x_{t-1}) of one step."""

    def __init__(self, noise: Noise, t: int, dims: int) -> None:
        super().__init__()
        self.noise, self.t, self.dims = noise, t, dims

    def forward(self, x: Tensor) -> Distribution:
        flat = x.flatten(-self.dims)
        return self.noise.step(flat, torch.tensor(self.t, device=x.device))


class Reverse(nn.Module, ABC):
    """What undoes the steps of a trajectory: p(x_0 | x_1), a distribution of data, and p(x_{t-1} | x_t), of vectors."""

    @abstractmethod
    def first(self, noisy: Tensor, t: Tensor) -> Distribution:
        """p(x_0 | x_t) as it is taken to be: x_t [..., D] and t [...] to a distribution of data [*X]."""

    @abstractmethod
    def later(self, noisy: Tensor, t: Tensor, first: Distribution) -> Distribution:
        """p(x_{t-1} | x_t) for t > 1, of vectors [D], given what `first` made of the same."""

    @torch.no_grad()
    def dream(self, last: Tensor, steps: int, shape: torch.Size) -> tuple[Tensor, list[Tensor]]:
        """Go back from x_T [N, D]: data [N, *X], and x_1 .. x_T [N, D] each."""
        path = [last]
        for step in range(steps, 1, -1):
            t = torch.full(last.shape[:-1], step, device=last.device)
            path.append(self.later(path[-1], t, self.first(path[-1], t)).sample())
        x = self.first(path[-1], torch.ones(last.shape[:-1], dtype=torch.long, device=last.device)).sample()
        return x.view(len(last), *shape), path[::-1]


class Step(Drawn):
    """A step t of 1..T, x_t and x_T given x_0, [..., 1 + 2 D]: one term of a trajectory, and its end.

    Steps are spread evenly over all draws, each uniform by itself.
    """

    partial: ClassVar[bool] = True
    has_rsample = True  # of nothing that has parameters

    def __init__(self, x: Tensor, noise: Noise) -> None:
        self.x, self.noise = x, noise
        super().__init__(x.shape[:-1], torch.Size([1 + 2 * x.shape[-1]]), validate_args=False)

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        steps, shape = len(self.noise), torch.Size([count, *self.batch_shape])
        with torch.no_grad():
            t = 1 + (steps * even_times(shape, self.x)).long().clamp(max=steps - 1)
            x = self.x.expand(*shape, -1)
            ends = [self.noise.at(x, step).sample() for step in (t, torch.full_like(t, steps))]
            tau = torch.cat([t.unsqueeze(-1).to(x), *ends], -1)
        return tau, tau.new_zeros(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """0: what there is to weigh is in p."""
        return value.new_zeros(value.shape[:-1])


def even_times(shape: torch.Size, like: Tensor) -> Tensor:
    """Times in [0, 1), each uniform, all together evenly spread and shuffled.

    Source: Kingma, Salimans, Poole and Ho, "Variational diffusion models" (2021), https://arxiv.org/abs/2107.00630
    """
    count, options = shape.numel(), {"dtype": like.dtype, "device": like.device}
    spread = (torch.rand((), **options) + torch.arange(count, **options) / count) % 1
    return spread[torch.randperm(count, device=like.device)].view(shape)


class StepInference(Inference):
    """q of a trajectory, one step at a time."""

    def __init__(self, noise: Noise, dims: int) -> None:
        super().__init__()
        self.noise, self.dims = noise, dims

    def forward(self, x: Tensor) -> Distribution:
        return Step(x.flatten(-self.dims), self.noise)


class StepGeneration(Generation):
    """p of a trajectory, one step at a time: its log_joint is an unbiased estimate of the bound.

        log p(x_T) - log q(x_T | x_0) - T term_t(x_t)

    term_t is KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), and at t = 1 it is -log p(x_0 | x_1): a likelihood.

    Args:
        prior: p(x_T), of event shape [D].
        reverse: p(x_{t-1} | x_t).
        noise: q.
        shape: of one datum [*X].
    """

    def __init__(self, prior: Prior, reverse: Reverse, noise: Noise, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.prior, self.reverse, self.noise, self.shape = prior, reverse, noise, torch.Size(shape)

    @property
    def unnormalized(self) -> Prior | None:
        return self.prior if self.prior.log_z is None else None

    def state(self, x: Tensor, tau: Tensor) -> Tensor:
        del x
        return tau[..., 1 + self.shape.numel() :]

    def log_joint(self, x: Tensor, tau: Tensor) -> Tensor:
        size, steps = self.shape.numel(), len(self.noise)
        t, noisy, last = tau[..., 0].long(), tau[..., 1 : 1 + size], tau[..., 1 + size :]
        end = self.noise.at(x.flatten(-len(self.shape)), torch.full_like(t, steps))
        return self.prior.log_prob(last) - end.log_prob(last) - steps * self.term(x, noisy, t)

    def term(self, x: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """term_t(x_t) of data x [..., *X], x_t [..., D] and t [...]: [...] nats."""
        first = self.reverse.first(noisy, t)
        likelihood = first.log_prob(x)
        if len(self.noise) == 1:
            return -likelihood
        later = t.clamp(min=2)
        q, p = self.noise.back(noisy, x.flatten(-len(self.shape)), later), self.reverse.later(noisy, later, first)
        return torch.where(t == 1, -likelihood, self.noise.divergence(q, p))

    @torch.no_grad()
    def dream(self, count: int, *, persistent: bool = False) -> tuple[Tensor, Tensor]:
        last = self.prior.persistent(count) if persistent else self.prior.sample(count)
        x, path = self.reverse.dream(last, len(self.noise), self.shape)
        t = torch.randint(len(path), (count,), device=last.device)
        noisy = torch.stack(path)[t, torch.arange(count, device=last.device)]
        return x, torch.cat([(t + 1).unsqueeze(-1).to(last), noisy, last], -1)

    def parts(self) -> dict[str, nn.Module]:
        return {"generator": self.reverse, "prior": self.prior}

    def advance(self) -> None:
        self.prior.advance()

    def bind(self, q: Inference, x: Tensor) -> None:
        self.prior.bind(q, x)
