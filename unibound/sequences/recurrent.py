"""Latents in time: p and q that go step by step through a recurrence that they share.

Shapes: T steps, B batch, *X one datum, Z latents of one step, S numbers of a state. Everything is in nats.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from unibound import support
from unibound.draws import Chain, Drawn, draw
from unibound.errors import UsageError
from unibound.generation import Generation
from unibound.networks import Inference
from unibound.support import Constraint


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

    steady: ClassVar[bool] = False
    """Whether p of a step depends on its state alone, and not on t: then all steps are scored at once."""

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

    def states(self, x: Tensor, pieces: Sequence[Tensor]) -> list[Tensor]:
        """The state before each step [..., S], of z_0, ..., z_{T-1} [..., Z]; nobody asks for that after the last."""
        found = [self.start(pieces[0].shape[:-1])]
        for t, z in enumerate(pieces[:-1]):
            found.append(self.after(found[-1], z, x, t))
        return found


class Follower(nn.Module, ABC):
    """q's part of each step. It reads the state of p, and what it remembers of the steps before is its own."""

    def look(self, memory: Tensor | None, before: Tensor | None, state: Tensor, x: Tensor, t: int) -> Tensor | None:
        """What it remembers [..., M] once it has looked at step t, before z_t is drawn: by default z_{t-1}, if any.

        Args:
            memory: what it remembered in the step before [..., M]; None in the first.
            before: z_{t-1} [..., Z]; None in the first step.
            state: of p, before step t [..., S].
            x: the datum [..., *X].
            t: the step.
        """
        del memory, state, x, t
        return before

    @abstractmethod
    def forward(self, state: Tensor, x: Tensor, memory: Tensor | None, t: int) -> Distribution:
        """q(z_t | x, z_<t) by the state before step t [..., S], the datum [..., *X], and what `look` remembered."""


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

    def step(self, state: Tensor, x: Tensor, memory: Tensor | None, t: int) -> Distribution:
        """q(z_t | x, z_<t), which is 0 for certain where step t of x is padding."""
        made, there = self.follower(state, x, memory, t), self._recurrence[0].there(x, t)
        return made if there is None else Present(made, there)

    def forward(self, x: Tensor) -> Distribution:
        if not self._recurrence:
            raise UsageError("a recurrent q follows p, and has not seen it; make a JointBound of the two")
        recurrence, walk = self._recurrence[0], _Walk(self._recurrence[0], self.follower, x)

        def make(pieces: list[Tensor]) -> Distribution:
            state, memory = walk.before_step(pieces)
            return self.step(state, x, memory, len(pieces))

        return _Followed(make([]), [make] * (recurrence.steps - 1), [recurrence.size] * recurrence.steps, walk)


class _Walk:
    """States of p and memories of q along a chain that grows piece by piece, each computed once."""

    def __init__(self, recurrence: Recurrence, follower: Follower, x: Tensor) -> None:
        self.recurrence, self.follower, self.x = recurrence, follower, x
        begin = recurrence.start(x.shape[: x.dim() - recurrence.x_dims])
        self.pieces: list[Tensor] = []
        self.met = [(begin, follower.look(None, None, begin, x, 0))]

    def before_step(self, pieces: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """The state before the step that follows some pieces, and what q then remembers."""
        known = 0
        while known < min(len(pieces), len(self.pieces)) and pieces[known] is self.pieces[known]:
            known += 1
        del self.pieces[known:], self.met[known + 1 :]
        for t in range(known, len(pieces)):
            (before, memory), z = self.met[-1], pieces[t]
            if before.shape[:-1] != z.shape[:-1]:  # a datum may meet latents of others
                lead = torch.broadcast_shapes(z.shape[:-1], before.shape[:-1])
                before, z = before.expand(*lead, -1), z.expand(*lead, -1)
            state = self.recurrence.after(before, z, self.x, t)
            self.met.append((state, self.follower.look(memory, z, state, self.x, t + 1)))
            self.pieces.append(pieces[t])
        return self.met[-1]


class _Followed(Chain):
    """A chain that still has the states of p that its newest draw went through."""

    def __init__(
        self,
        first: Distribution,
        rest: Sequence[Callable[[list[Tensor]], Distribution]],
        sizes: Sequence[int],
        walk: _Walk,
    ) -> None:
        super().__init__(first, rest, sizes)
        self.walk = walk
        self._newest: tuple[Tensor, list[Tensor], bool] | None = None  # and whether gradients were asked for

    def draw_pieces(self, count: int, *, reparameterized: bool) -> tuple[Tensor, list[Tensor]]:
        tau, log_q = super().draw_pieces(count, reparameterized=reparameterized)
        self._newest = tau, [state for state, _ in self.walk.met], torch.is_grad_enabled()
        return tau, log_q

    def states(self, recurrence: Recurrence, x: Tensor, tau: Tensor) -> list[Tensor] | None:
        """States of a recurrence before each step of its newest draw; None where it went through no such."""
        if self._newest is None or recurrence is not self.walk.recurrence or x is not self.walk.x:
            return None
        newest, states, with_gradients = self._newest
        return states if tau is newest and with_gradients == torch.is_grad_enabled() else None


class RecurrentGeneration(Generation):
    """p(x, tau) = prod_t p(z_t | x_<t, z_<t) p(x_t | x_<t, z_<=t), or the datum at once when the last step is done.

    Where p(z_t) looks at x_<t there is no p(tau), and no p(x | tau).
    """

    def __init__(self, recurrence: Recurrence) -> None:
        super().__init__()
        self.recurrence = recurrence

    def step_terms(self, x: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """log p of the data and of the latents of each step: x [..., *X] and tau [..., T Z] to [T, ...] twice, nats."""
        pieces = tau.split(self.recurrence.size, -1)
        return self.terms(x, pieces, self.recurrence.states(x, pieces))

    def terms(self, x: Tensor, pieces: Sequence[Tensor], states: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """`step_terms` of pieces of tau, T of [..., Z], and of the state before each, which broadcasts against it."""
        recurrence, lead = self.recurrence, pieces[0].shape[:-1]
        states = [state.expand(*lead, -1) for state in states]
        if not recurrence.steady:
            terms = [self.step(state, x, z, t) for t, (state, z) in enumerate(zip(states, pieces, strict=True))]
            data, latents = zip(*terms, strict=True)
            return torch.stack(data), torch.stack(latents)
        apart = (slice(None), *[None] * (len(lead) + recurrence.x_dims - x.dim()))  # a datum meets latents of its own
        parts = torch.stack([recurrence.part(x, t) for t in range(recurrence.steps)])[apart]
        flags = [flag for t in range(recurrence.steps) if (flag := recurrence.there(x, t)) is not None]
        there = torch.stack(flags)[apart] if flags else None
        return self.score(torch.stack(states), torch.stack(list(pieces)), parts, there, 0)

    def step(self, state: Tensor, x: Tensor, z: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """log p of the data and of the latents of step t [...], 0 where it is padding."""
        return self.score(state, z, self.recurrence.part(x, t), self.recurrence.there(x, t), t)

    def score(self, state: Tensor, z: Tensor, part: Tensor, there: Tensor | None, t: int) -> tuple[Tensor, Tensor]:
        """The same of a part of the datum, and of whether it is there; of all steps [T, ...] if they are steady."""
        prior, made = self.recurrence.prior(state, t), self.recurrence.data(state, z, t)
        log_z = prior.log_prob(z)
        log_x = torch.zeros_like(log_z) if made is None else made.log_prob(part)
        if there is not None:
            log_x, log_z = torch.where(there > 0, log_x, 0.0), torch.where(there > 0, log_z, 0.0)
        return log_x, log_z

    def log_terms(self, x: Tensor, tau: Tensor) -> Tensor:
        data, latents = self.step_terms(x, tau)
        return torch.cat([data.sum(0, keepdim=True), latents])

    def log_joint(self, x: Tensor, tau: Tensor) -> Tensor:
        return self.log_terms(x, tau).sum(0)

    def log_joint_along(self, x: Tensor, tau: Tensor, drawn: Distribution) -> Tensor:
        states = drawn.states(self.recurrence, x, tau) if isinstance(drawn, _Followed) else None
        if states is None:
            return self.log_joint(x, tau)
        data, latents = self.terms(x, tau.split(self.recurrence.size, -1), states)
        return (data + latents).sum(0)

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
