"""The posterior of a datum, reached by draws or by annealing: from what can be drawn from to p*(x, tau).

Shapes: M chains, B data, *Z one latent, Z its elements in a row, L layers. Everything is in nats, float64.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import attrs
import torch
from torch import Tensor
from torch.distributions import Distribution

from unibound.draws import pieces
from unibound.generation import Generation
from unibound.partition.starts import Start
from unibound.support import Constraint, of, real, same, values

SIZES = (0.02, 1.5)
"""Least and greatest size of a step over reals, in standard deviations of the start."""


@attrs.frozen(eq=False)
class Point:
    """States of chains, and what is known of them.

    Args:
        tau: [M, B, *Z].
        log_start: log-density of the start [M, B].
        log_p: log p*(x, tau) [M, B].
        slopes: gradients of both in tau [M, B, Z]; None where no move asks for them.
    """

    tau: Tensor
    log_start: Tensor
    log_p: Tensor
    slopes: tuple[Tensor, Tensor] | None

    def log_f(self, beta: float) -> Tensor:
        """log f_beta [M, B] = (1 - beta) log start + beta log p*."""
        return (1 - beta) * self.log_start + beta * self.log_p

    def slope(self, beta: float) -> Tensor:
        """Its gradient in tau [M, B, Z]."""
        assert self.slopes is not None
        return torch.lerp(*self.slopes, beta)


class Move(ABC):
    """A Metropolis step that leaves f_beta invariant, and is its own reverse."""

    needs_slope = False

    @abstractmethod
    def propose(self, at: Point, beta: float) -> tuple[Tensor, Tensor | None]:
        """A proposal [M, B, *Z], and the size of the step if `log_ratio` asks for it."""

    def log_ratio(self, at: Point, new: Point, size: Tensor | None, beta: float) -> Tensor | float:
        """log-density of proposing the way back, less that of the way forth [M, B]: none where these are alike."""
        del at, new, size, beta
        return 0.0


@attrs.frozen(eq=False)
class Flip(Move):
    """Another value for one element, where an element has finitely many.

    Args:
        index: elements it may choose [I].
        listed: the values [V].
    """

    index: Tensor
    listed: Tensor

    def propose(self, at: Point, beta: float) -> tuple[Tensor, None]:
        row = at.tau.flatten(2)  # [M, B, Z]
        which = self.index[torch.randint(len(self.index), (*row.shape[:2], 1), device=row.device)]
        number = (row.gather(2, which) == self.listed).long().argmax(-1, keepdim=True)
        other = number + torch.randint(1, len(self.listed), number.shape, device=row.device)
        return row.scatter(2, which, self.listed[other % len(self.listed)]).view_as(at.tau), None


@attrs.frozen(eq=False)
class Drift(Move):
    """A step along the slope with noise, its size drawn anew each time so that none need be tuned.

    Args:
        scale: size of a step, which is 0 for elements that stay [B, Z].

    Source: Roberts and Tweedie, "Exponential convergence of Langevin distributions and their discrete approximations"
    (1996), https://doi.org/10.2307/3318418
    """

    scale: Tensor
    needs_slope = True

    def propose(self, at: Point, beta: float) -> tuple[Tensor, Tensor]:
        low, high = (math.log(size) for size in SIZES)
        uniform = torch.rand(*at.log_p.shape, 1, dtype=self.scale.dtype, device=self.scale.device)
        size = self.scale * torch.lerp(uniform.new_tensor(low), uniform.new_tensor(high), uniform).exp()
        row = self._mean(at, size, beta) + size * torch.randn_like(size)
        return row.view_as(at.tau), size

    def log_ratio(self, at: Point, new: Point, size: Tensor | None, beta: float) -> Tensor:
        assert size is not None
        safe = size.clamp_min(torch.finfo(size.dtype).tiny)
        back = (at.tau.flatten(2) - self._mean(new, size, beta)) / safe
        forth = (new.tau.flatten(2) - self._mean(at, size, beta)) / safe
        return (forth.square() - back.square()).sum(-1).double() / 2

    def _mean(self, at: Point, size: Tensor, beta: float) -> Tensor:
        return at.tau.flatten(2) + size.square() / 2 * at.slope(beta)


@attrs.frozen(eq=False)
class Redraw(Move):
    """A new draw of the start, where nothing smaller is known."""

    start: Start

    def propose(self, at: Point, beta: float) -> tuple[Tensor, None]:
        return self.start.draw(len(at.tau)), None

    def log_ratio(self, at: Point, new: Point, size: Tensor | None, beta: float) -> Tensor:
        return at.log_start - new.log_start


def moves(posterior: Distribution, start: Start, over: Constraint | None) -> tuple[Move, ...]:
    """Moves for what tau is made of: flips, steps along the slope, or new draws.

    Args:
        posterior: q(tau | x), whose pieces say what they are over where p does not.
        start: of the chains; its spread sets the size of steps, and new draws come from it.
        over: what all of tau is over, as far as p says so.
    """
    tau = start.draw(64)  # [64, B, *Z]
    row, found, first = tau.flatten(2), [], 0
    drifts = torch.zeros_like(row[0])  # [B, Z]
    for size, made in pieces(posterior):
        index, kind = torch.arange(first, first + size, device=tau.device), over or of(made)
        if (listed := values(kind)) is not None:
            found.append(Flip(index, torch.tensor(listed).to(tau)))
        elif kind is not None and same(kind, real):
            drifts[:, index] = row.std(0)[:, index].clamp_min(1e-6)
        else:
            found.append(Redraw(start))
        first += size
    return (*found, Drift(drifts)) if drifts.any() else tuple(found)


@attrs.frozen(eq=False)
class Path:
    """From a start to the posterior of each of B data: f_beta = start^(1 - beta) p*(x, tau)^beta.

    With temperatures 0 and 1 alone its log-weights are those of importance sampling; with more, of annealing.

    Args:
        p: the model.
        x: data [B, *X].
        start: where chains begin.
        moves: what moves them between temperatures.
        at_once: states that are put through p at once.

    Source: Neal, "Annealed importance sampling" (2001), https://arxiv.org/abs/physics/9803008; of the posterior, Wu,
    Burda, Salakhutdinov and Grosse, "On the quantitative analysis of decoder-based generative models" (2017),
    https://arxiv.org/abs/1611.04273
    """

    p: Generation
    x: Tensor
    start: Start
    moves: Sequence[Move] = ()
    at_once: int = 50_000

    def rise(self, num_chains: int, betas: Tensor) -> Tensor:
        """Log-weights [M, B] of chains from the start: E[exp(log_w)] = p*(x), so log-mean-exp errs low."""
        at, schedule = self.at(self.start.draw(num_chains)), betas.tolist()
        log_w = torch.zeros_like(at.log_p)
        for a, b in pairwise(schedule):
            log_w += (b - a) * (at.log_p - at.log_start)
            if b < schedule[-1]:
                at = self._move(at, b, self.moves)
        return _number(log_w)

    def both(self, tau: Tensor, num_chains: int, betas: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of log p*(x) from both sides, each [B], where tau [B, *Z] are exact draws of the posterior.

        One of the chains is replaced by one that falls from tau. With W the mean weight then, E[1 / W] = 1 / p*(x), so
        that E[log W] >= log p*(x).

        Source: Grosse, Ghahramani and Adams, "Sandwiching the marginal likelihood using bidirectional Monte Carlo"
        (2015), https://arxiv.org/abs/1511.02543
        """
        log_w = self.rise(num_chains, betas)
        place = self.start.place(tau, self.p.log_terms(self.x, tau)).unsqueeze(0)
        exchanged = log_w.scatter(0, place, self._fall(tau, betas))
        return tuple((one.logsumexp(0) - math.log(num_chains)) for one in (log_w, exchanged))  # pyright: ignore

    def _fall(self, tau: Tensor, betas: Tensor) -> Tensor:
        """The log-weight [1, B] of the chain that would have risen to tau [B, *Z]."""
        at, schedule = self.at(tau.unsqueeze(0)), betas.tolist()
        log_w = torch.zeros_like(at.log_p)
        for b, a in pairwise(reversed(schedule)):
            log_w += (b - a) * (at.log_p - at.log_start)
            if a > schedule[0]:
                at = self._move(at, a, self.moves[::-1])
        return log_w

    def at(self, tau: Tensor) -> Point:
        """What is known of states [M, B, *Z]."""
        found = [self._at(part) for part in tau.split(max(1, self.at_once // len(self.x)))]
        slopes = [one.slopes for one in found if one.slopes is not None]
        return Point(
            tau,
            torch.cat([one.log_start for one in found]),
            torch.cat([one.log_p for one in found]),
            (torch.cat([one for one, _ in slopes]), torch.cat([one for _, one in slopes])) if slopes else None,
        )

    def _at(self, tau: Tensor) -> Point:
        sloped = any(move.needs_slope for move in self.moves)
        with torch.set_grad_enabled(sloped):
            tau = tau.detach().requires_grad_(sloped)
            terms = self.p.log_terms(self.x, tau)  # [L + 1, M, B]
            log_start, log_p = self.start.log_prob(tau, terms), terms.double().sum(0)
            slopes = (_slope(log_start, tau), _slope(log_p, tau)) if sloped else None
        return Point(tau.detach(), log_start.detach(), _number(log_p.detach()), slopes)

    def _move(self, at: Point, beta: float, moves: Sequence[Move]) -> Point:
        for move in moves:
            tau, size = move.propose(at, beta)
            new = self.at(tau)
            log_accept = new.log_f(beta) - at.log_f(beta) + move.log_ratio(at, new, size, beta)
            at = _choose(torch.rand_like(log_accept).log() < log_accept, new, at)
        return at


def _slope(value: Tensor, tau: Tensor) -> Tensor:
    """Gradient of values [M, B] in tau, in a row [M, B, Z]; none where there is no more to climb."""
    if not value.requires_grad:
        return torch.zeros_like(tau).flatten(2)
    found = torch.autograd.grad(value.sum(), tau, retain_graph=True, allow_unused=True)[0]
    return torch.zeros_like(tau).flatten(2) if found is None else found.flatten(2).nan_to_num(0.0, 0.0, 0.0)


def _number(log_p: Tensor) -> Tensor:
    """Log-weights of what has none are those of what cannot be."""
    return log_p.nan_to_num(-math.inf, math.inf, -math.inf)


def _choose(taken: Tensor, new: Point, old: Point) -> Point:
    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(taken.view(*taken.shape, *[1] * (a.dim() - 2)), a, b)

    slopes = None
    if new.slopes is not None and old.slopes is not None:
        slopes = (pick(new.slopes[0], old.slopes[0]), pick(new.slopes[1], old.slopes[1]))
    return Point(pick(new.tau, old.tau), pick(new.log_start, old.log_start), pick(new.log_p, old.log_p), slopes)
