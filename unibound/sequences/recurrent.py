"""Latents in time: p and q that go step by step through a recurrence that they share.

Shapes: T steps, B batch, *X one datum, Z latents of one step, S numbers of a state. Everything is in nats.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from unibound import support
from unibound.draws import Chain, Drawn, draw
from unibound.errors import UsageError
from unibound.generation import Generation
from unibound.networks import Inference
from unibound.support import Constraint
from unibound.weights import log_mean_exp


class Present(Drawn):
    """A distribution where a step is there, and 0 for certain where it is padding.

    Args:
        base: of vectors, batch shape [...].
        there: 1 where the step is there, 0 where it is not [...]; broadcasts against the batch.
    """

    def __init__(self, base: Distribution, there: Tensor) -> None:
        self.base, self.there = base, there
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.base.has_rsample

    @property
    def support(self) -> Constraint | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return support.of(self.base)

    @property
    def mean(self) -> Tensor:
        return self.base.mean * self.there.unsqueeze(-1)

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        value, log_p = draw(self.base, count, reparameterized=reparameterized)
        return torch.where(self.there.unsqueeze(-1) > 0, value, 0.0), torch.where(self.there > 0, log_p, 0.0)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value) where the step is there, and 0 elsewhere [...], nats."""
        return torch.where(self.there > 0, self.base.log_prob(value), 0.0)


class Recurrence(nn.Module, ABC):
    """What happens in each step t = 0 .. T - 1: latents are drawn, data may be, and the state moves on.

    Args:
        steps: T.
        size: Z.
        x_dims: dimensions of one datum [*X].
    """

    def __init__(self, steps: int, size: int, x_dims: int) -> None:
        super().__init__()
        self.steps, self.size, self.x_dims = steps, size, x_dims

    @abstractmethod
    def start(self, lead: torch.Size) -> Tensor:
        """The state [*lead, S] before the first step."""

    @abstractmethod
    def prior(self, state: Tensor, t: int) -> Distribution:
        """p(z_t | what came before), by the state [..., S]: event shape [Z]."""

    @abstractmethod
    def move(self, state: Tensor, z: Tensor, x: Tensor, t: int) -> Tensor:
        """The state after step t, of z_t [..., Z] and the datum [..., *X], of which steps up to t may be looked at."""

    @abstractmethod
    def data(self, state: Tensor, z: Tensor, t: int) -> Distribution | None:
        """What of the datum is drawn in step t given the state before it and z_t; None where nothing is."""

    @abstractmethod
    def part(self, x: Tensor, t: int) -> Tensor:
        """What `data` of step t is a distribution of, of a datum [..., *X]."""

    @abstractmethod
    def join(self, parts: list[Tensor]) -> Tensor:
        """The datum [..., *X] that was drawn part by part."""

    def there(self, x: Tensor, t: int) -> Tensor | None:
        """1 where step t of a datum is there and 0 where it is padding [...]; None where all of them are."""
        del x, t
        return None

    def after(self, state: Tensor, z: Tensor, x: Tensor, t: int) -> Tensor:
        """The state after step t, which padding leaves as it is."""
        moved, there = self.move(state, z, x, t), self.there(x, t)
        return moved if there is None else torch.where(there.unsqueeze(-1) > 0, moved, state)


class Follower(nn.Module, ABC):
    """q's part of each step."""

    @abstractmethod
    def forward(self, state: Tensor, x: Tensor, before: Tensor | None, t: int) -> Distribution:
        """q(z_t | x, z_<t) by the state before step t [..., S], the datum [..., *X] and z_{t-1} [..., Z], if any."""


class RecurrentInference(Inference):
    """q(tau | x) = q(z_0 | x) q(z_1 | z_0, x) ...: a chain that follows the recurrence of p, and owns none of it."""

    def __init__(self, follower: Follower) -> None:
        super().__init__()
        self.follower = follower
        self._recurrence: tuple[Recurrence, ...] = ()  # in a tuple, so that its parameters are p's

    def bind(self, p: nn.Module) -> None:
        if not isinstance(p, RecurrentGeneration):
            raise UsageError(f"this q follows a recurrence, but {type(p).__name__} has none; use RecurrentGeneration")
        self._recurrence = (p.recurrence,)

    def step(self, state: Tensor, x: Tensor, before: Tensor | None, t: int) -> Distribution:
        """q(z_t | x, z_<t), which is 0 for certain where step t of x is padding."""
        made, there = self.follower(state, x, before, t), self._recurrence[0].there(x, t)
        return made if there is None else Present(made, there)

    def forward(self, x: Tensor) -> Distribution:
        if not self._recurrence:
            raise UsageError("a recurrent q follows p, and has not seen it; make a JointBound of the two")
        recurrence, walk = self._recurrence[0], _Walk(self._recurrence[0], x)
        first = self.step(walk.state([]), x, None, 0)
        rest = [lambda pieces, t=t: self.step(walk.state(pieces), x, pieces[-1], t) for t in range(1, recurrence.steps)]
        return Chain(first, rest, [recurrence.size] * recurrence.steps)


class _Walk:
    """States along a chain that grows piece by piece, each computed once."""

    def __init__(self, recurrence: Recurrence, x: Tensor) -> None:
        self.recurrence, self.x = recurrence, x
        self.begin = recurrence.start(x.shape[: x.dim() - recurrence.x_dims])
        self.pieces: list[Tensor] = []
        self.states: list[Tensor] = []

    def state(self, pieces: list[Tensor]) -> Tensor:
        known = 0
        while known < min(len(pieces), len(self.pieces)) and pieces[known] is self.pieces[known]:
            known += 1
        del self.pieces[known:], self.states[known:]
        for t in range(known, len(pieces)):
            before = self.states[-1] if self.states else self.begin
            lead = pieces[t].shape[:-1]
            before = before.expand(*lead, before.shape[-1])
            self.states.append(self.recurrence.after(before, pieces[t], self.x, t))
            self.pieces.append(pieces[t])
        return self.states[-1] if pieces else self.begin


class RecurrentGeneration(Generation):
    """p(x, tau) = prod_t p(z_t | x_<t, z_<t) p(x_t | x_<t, z_<=t), or the datum at once when the last step is done.

    Where p(z_t) looks at x_<t there is no p(tau), and no p(x | tau).
    """

    def __init__(self, recurrence: Recurrence) -> None:
        super().__init__()
        self.recurrence = recurrence

    def step_terms(self, x: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """log p of the data and of the latents of each step: x [..., *X] and tau [..., T Z] to [T, ...] twice, nats."""
        state, data, latents = self.recurrence.start(tau.shape[:-1]), [], []
        for t, z in enumerate(tau.split(self.recurrence.size, -1)):
            log_x, log_z, state = self.step(state, x, z, t)
            data.append(log_x)
            latents.append(log_z)
        return torch.stack(data), torch.stack(latents)

    def step(self, state: Tensor, x: Tensor, z: Tensor, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """log p of the data and of the latents of step t [...], 0 where it is padding, and the state after it."""
        there = self.recurrence.there(x, t)
        prior, made = self.recurrence.prior(state, t), self.recurrence.data(state, z, t)
        log_z = prior.log_prob(z)
        log_x = torch.zeros_like(log_z) if made is None else made.log_prob(self.recurrence.part(x, t))
        if there is not None:
            log_x, log_z = torch.where(there > 0, log_x, 0.0), torch.where(there > 0, log_z, 0.0)
        return log_x, log_z, self.recurrence.after(state, z, x, t)

    def log_terms(self, x: Tensor, tau: Tensor) -> Tensor:
        data, latents = self.step_terms(x, tau)
        return torch.cat([data.sum(0, keepdim=True), latents])

    def log_joint(self, x: Tensor, tau: Tensor) -> Tensor:
        return self.log_terms(x, tau).sum(0)

    @torch.no_grad()
    def dream(self, count: int, *, persistent: bool = False) -> tuple[Tensor, Tensor]:
        del persistent  # there are no chains
        state, pieces, parts = self.recurrence.start(torch.Size([count])), [], []
        for t in range(self.recurrence.steps):
            pieces.append(self.recurrence.prior(state, t).sample())
            made = self.recurrence.data(state, pieces[-1], t)
            if made is not None:
                parts.append(made.sample())
            state = self.recurrence.move(state, pieces[-1], self.recurrence.join(parts), t)
        return self.recurrence.join(parts), torch.cat(pieces, -1)


def resample(log_w: Tensor) -> Tensor:
    """Numbers of particles [K, B], drawn independently in proportion to the weights of log-weights [K, B]."""
    return torch.multinomial(log_w.softmax(0).T, len(log_w), replacement=True).T


def filtering_bound(
    q: RecurrentInference, p: RecurrentGeneration, x: Tensor, k: int, choose: Callable[[Tensor], Tensor] = resample
) -> Tensor:
    """A lower bound on log p(x) by K particles that are resampled between steps: x [B, *X] to [B] nats.

        sum_t log (1/K) sum_k w_t^k,   w_t = p(x_t, z_t | x_<t, z_<t) / q(z_t | x, z_<t)

    Its exponential is an unbiased estimate of p(x). Gradients through it leave out those of the resampling.

    Args:
        q: draws latents.
        p: what they are weighed by.
        x: data [B, *X].
        k: number of particles K.
        choose: maps log-weights [K, B] to numbers of particles [K, B], each in proportion to its weight.

    Source: Maddison et al., "Filtering variational objectives" (2017), https://arxiv.org/abs/1705.09279
    """
    state, before = p.recurrence.start(torch.Size([k, len(x)])), None
    total = state.new_zeros(len(x))
    for t in range(p.recurrence.steps):
        z, log_q = (value.squeeze(0) for value in draw(q.step(state, x, before, t), 1))
        log_x, log_z, state = p.step(state, x, z, t)
        log_w = log_x + log_z - log_q  # [K, B]
        total = total + log_mean_exp(log_w)
        if t + 1 < p.recurrence.steps:
            chosen = choose(log_w.detach()).unsqueeze(-1)  # [K, B, 1]
            state, before = (value.gather(0, chosen.expand_as(value)) for value in (state, z))
    return total
