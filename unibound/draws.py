"""Draws that are scored while they are made, and chains of pieces that are drawn one after another."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from unibound.errors import UsageError
from unibound.support import Constraint


class Drawn(Distribution, ABC):
    """A distribution that scores a draw while it makes it, cheaper than `log_prob` could afterwards.

    Layers that are drawn one after another, flows and autoregressive nets are such. `draw` is all that a subclass
    need give beside `log_prob`.
    """

    arg_constraints = {}  # noqa: RUF012 - the name torch.distributions looks up  # pyright: ignore

    partial: ClassVar[bool] = False
    """Whether a draw stands for one random term of a tau too large to keep. Only means of such log-weights mean
    anything: K of them make no K-particle bound."""

    @abstractmethod
    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        """Draws [count, ..., *Z], detached unless reparameterized, and their log-probabilities [count, ...] nats."""

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        return self._shaped(sample_shape, reparameterized=True)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            return self._shaped(sample_shape, reparameterized=False)

    def _shaped(self, sample_shape: _size, *, reparameterized: bool) -> Tensor:
        shape = torch.Size(sample_shape)
        value, _ = self.draw(shape.numel(), reparameterized=reparameterized)
        return value.reshape(self._extended_shape(shape))


def draw(made: Distribution, count: int, *, reparameterized: bool = False) -> tuple[Tensor, Tensor]:
    """Draw from any distribution and score the draws, in one pass where it can.

    Args:
        made: of batch shape [...] and event shape [*Z].
        count: draws of each element of the batch.
        reparameterized: let gradients flow through the draws; otherwise they are detached.
    Returns:
        Draws [count, ..., *Z] and their log-probabilities [count, ...] in nats.
    Raises:
        UsageError: reparameterized draws of a distribution that has none.
    """
    if isinstance(made, Drawn):
        return made.draw(count, reparameterized=reparameterized)
    value = unscored(made, count, reparameterized=reparameterized)
    return value, made.log_prob(value)


def unscored(made: Distribution, count: int, *, reparameterized: bool = False) -> Tensor:
    """Draws [count, ..., *Z] alone, of what scores them no cheaper while it makes them; raises as `draw` does."""
    if reparameterized and not made.has_rsample:
        raise UsageError(f"{type(made).__name__} has no reparameterized draws; use an estimator that needs none")
    return made.rsample((count,)) if reparameterized else made.sample((count,))


class Flat(Drawn):
    """Another distribution whose events [*Z] are laid out in a row [Z]."""

    def __init__(self, base: Distribution) -> None:
        self.base, self.has_rsample = base, base.has_rsample
        super().__init__(base.batch_shape, torch.Size([base.event_shape.numel()]), validate_args=False)

    @property
    def support(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.base.support  # pyright: ignore[reportReturnType]

    @property
    def mean(self) -> Tensor:
        return self.base.mean.flatten(-len(self.base.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """log-probability of a row [..., Z]: [...] nats."""
        return self.base.log_prob(value.unflatten(-1, self.base.event_shape))

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        value, log_q = draw(self.base, count, reparameterized=reparameterized)
        return value.flatten(-len(self.base.event_shape)), log_q


def flat(made: Distribution) -> Distribution:
    """A distribution over rows: the same where its events are rows already."""
    return made if len(made.event_shape) == 1 else Flat(made)


class Chain(Drawn):
    """Pieces drawn one after another, each given those before it, side by side in one tensor [..., Z_1 + ... + Z_L].

        q(tau) = q_1(tau_1) q_2(tau_2 | tau_1) ... q_L(tau_L | tau_1 .. tau_{L-1})

    Draws of the whole chain are independent: K of them run through every layer.

    Args:
        first: distribution of the first piece: batch shape [...], event shape [Z_1].
        rest: of each later piece, what makes its distribution of the pieces so far, each [..., Z_l].
        sizes: Z_1 .. Z_L, as they lie.
        downward: the piece that is drawn first lies last, and so on: the top of some layers, which are drawn downwards.
    """

    def __init__(
        self,
        first: Distribution,
        rest: Sequence[Callable[[list[Tensor]], Distribution]],
        sizes: Sequence[int],
        *,
        downward: bool = False,
    ) -> None:
        if tuple(first.event_shape) != (sizes[-1 if downward else 0],) or len(rest) + 1 != len(sizes):
            raise UsageError(
                f"a chain of sizes {list(sizes)} has {len(rest) + 1} pieces, the first of shape "
                f"{list(first.event_shape)}; give one size per piece, that of its events"
            )
        self.first, self.rest, self.sizes = first, tuple(rest), list(sizes)
        self.downward = downward
        self._order = -1 if downward else 1  # of the pieces as they lie, to be as they are drawn; and back
        super().__init__(first.batch_shape, torch.Size([sum(sizes)]), validate_args=False)

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether every piece has reparameterized draws."""
        return all(made.has_rsample for made in self.layers())

    def layers(self) -> list[Distribution]:
        """The distribution of each piece given a draw of those before it; random numbers are left as they were."""
        pieces, found = [], [self.first]
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for make in self.rest:
                pieces.append(found[-1].sample())
                found.append(make(pieces))
        return found

    def log_probs(self, value: Tensor) -> Tensor:
        """log-probability of each piece given those before it: [..., Z] to [L, ...] nats."""
        pieces = list(value.split(self.sizes, -1))[:: self._order]
        later = [make(pieces[:index]).log_prob(pieces[index]) for index, make in enumerate(self.rest, 1)]
        drawn = torch.broadcast_tensors(self.first.log_prob(pieces[0]), *later)
        return torch.stack(drawn[:: self._order])

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(value) [...] in nats; value broadcasts against the batch."""
        return self.log_probs(value).sum(0)

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        value, log_q = self.draw_pieces(count, reparameterized=reparameterized)
        first, *rest = log_q[:: self._order]
        return value, sum(rest, first)

    def draw_pieces(self, count: int, *, reparameterized: bool) -> tuple[Tensor, list[Tensor]]:
        """As `draw`, with the log-probability of each piece given those before it: L of [count, ...] nats."""
        piece, log_piece = draw(self.first, count, reparameterized=reparameterized)
        pieces, log_q = [piece], [log_piece]
        for make in self.rest:
            piece, log_piece = draw(make(pieces), 1, reparameterized=reparameterized)
            pieces.append(piece.squeeze(0))
            log_q.append(log_piece.squeeze(0))
        return torch.cat(pieces[:: self._order], -1), log_q[:: self._order]


def pieces(made: Distribution) -> list[tuple[int, Distribution]]:
    """Sizes of the pieces of an event as they lie, and what each is drawn from; one of all where it is no chain."""
    if isinstance(made, Chain):
        layers = made.layers()[:: -1 if made.downward else 1]
        return list(zip(made.sizes, layers, strict=True))
    return [(made.event_shape.numel(), made)]


def draw_pieces(made: Distribution, count: int, *, reparameterized: bool = False) -> tuple[Tensor, list[Tensor]]:
    """As `draw`, with the log-probability of each piece of a chain; what is none is one piece."""
    if isinstance(made, Chain):
        return made.draw_pieces(count, reparameterized=reparameterized)
    value, log_q = draw(made, count, reparameterized=reparameterized)
    return value, [log_q]


def log_pieces(made: Distribution, value: Tensor) -> Sequence[Tensor]:
    """log-probability of each piece of a chain, as they lie, of values [..., *Z]; what is none is one piece."""
    return list(made.log_probs(value)) if isinstance(made, Chain) else [made.log_prob(value)]
