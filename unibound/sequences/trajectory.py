"""Trajectories from a datum to noise, and back: what diffusion models are made of.

Shapes: D elements of a datum [*X], T steps, numbered from 1. Everything is in nats.
"""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from unibound.draws import Drawn
from unibound.errors import UsageError
from unibound.generation import Generation
from unibound.networks import Inference
from unibound.prior import Prior
from unibound.sequences.noise import Noise


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
    def retrace(self, last: Tensor, noise: Noise, shape: torch.Size, steps: int | None = None) -> Tensor:
        """Go back from x_T [N, D] in all T steps, or in fewer, evenly spread: x_T, ..., x_0 [S + 1, N, *X].

        A leap over several steps is that of q, x_0 being taken for what `first` says.
        """
        if steps is not None and not 1 <= steps <= len(noise):
            raise UsageError(f"a trajectory of {len(noise)} steps is gone back in 1 to {len(noise)}, not in {steps}")
        path, times = [last], torch.linspace(len(noise), 0, (steps or len(noise)) + 1).round().long().tolist()
        for now, before in pairwise(times):
            t = torch.full(last.shape[:-1], now, device=last.device)
            first = self.first(path[-1], t)
            if before == 0:
                path.append(first.sample().view_as(last))
            elif before == now - 1:
                path.append(self.later(path[-1], t, first).sample())
            else:
                path.append(noise.leap(before, now).guess(path[-1], first, torch.full_like(t, 2)).sample())
        return torch.stack(path).view(len(path), len(last), *shape)


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
        *path, x = self.reverse.retrace(last, self.noise, self.shape)
        t = torch.randint(len(path), (count,), device=last.device)
        noisy = torch.stack(path[::-1])[t, torch.arange(count, device=last.device)].flatten(1)
        return x, torch.cat([(t + 1).unsqueeze(-1).to(last), noisy, last], -1)

    @torch.no_grad()
    def stages(self, count: int, steps: int | None = None) -> Tensor:
        return self.reverse.retrace(self.prior.sample(count), self.noise, self.shape, steps)

    def parts(self) -> dict[str, nn.Module]:
        return {"generator": self.reverse, "prior": self.prior}

    def advance(self) -> None:
        self.prior.advance()

    def bind(self, q: Inference, x: Tensor) -> None:
        self.prior.bind(q, x)
