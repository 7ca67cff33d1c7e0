"""Inference that optimizes: mean field for each datum, by coordinate ascent on p's own bound.

Shapes: B data, Z latents, P latents of a piece. Everything is in nats.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from unibound.distributions import Bits
from unibound.errors import UsageError
from unibound.generation import Generation
from unibound.networks import Inference
from unibound.support import boolean, describe, real, same

Functional = Callable[[Tensor], Tensor]
"""Maps means mu [..., Z] of independent latents to E_q[log p*(x, tau)], or a lower bound of it: [...] nats."""
SLACK = 1e-4
"""How far, relative to its size, a functional may seem to bend by rounding alone."""
LINES = 8  # on which it is looked at
MAX_BITS = 12  # latents whose states are listed


def settle(value: Functional, logits: Tensor, pieces: Sequence[Sequence[int]], sweeps: int) -> Tensor:
    """Mean field over bits: each piece in turn to where the bound is highest, given the others.

        mu_i <- sigmoid(d value / d mu_i),   bound = value(mu) + sum_i H(mu_i)

    Where `value` is linear in each piece this is the maximum, and where it is convex in it no step lowers the bound,
    since the tangent lies below. Bits that bend it together, of one piece, can go round in a circle for ever.

    Args:
        value: of means [..., Z].
        logits: where it begins [..., Z].
        pieces: indices of the bits that move together, in the order in which they move.
        sweeps: times that every piece moves; a fixed number, so that no datum's answer depends on its batch.
    Returns:
        Logits [..., Z]; differentiable in those that were given, and in what `value` depends on, if gradients are on.

    Source: Saul, Jaakkola and Jordan, "Mean field theory for sigmoid belief networks" (1996),
    https://arxiv.org/abs/cs/9603102
    """
    for _ in range(sweeps):
        for piece in pieces:
            moved = logits.clone()
            moved[..., piece] = _slope(value, logits.sigmoid())[..., piece]
            logits = moved
    return logits


def settle_normals(
    value: Functional, mean: Tensor, pieces: Sequence[Sequence[int]], sweeps: int
) -> tuple[Tensor, Tensor]:
    """The same over reals of which log p*(x, tau) is quadratic: independent normals, by their means and scales.

        Lambda_i = -d^2 value / d m_i^2,   m_i <- m_i + (d value / d m_i) / Lambda_i,   s_i = Lambda_i^(-1/2)

    Args:
        value: log p*(x, tau) at means [..., Z], not its expectation: that is less by half for each latent.
        mean: where it begins [..., Z].
        pieces: as in `settle`.
        sweeps: as in `settle`.
    Returns:
        Means and scales [..., Z].
    Raises:
        UsageError: a log p* that does not fall off to both sides.

    Source: Blei, Kucukelbir and McAuliffe, "Variational inference: a review for statisticians" (2017),
    https://arxiv.org/abs/1601.00670
    """
    precision = torch.stack([_bend(value, mean, index) for index in range(mean.shape[-1])], -1)
    if not bool((precision > 0).all()):
        raise UsageError("log p*(x, tau) does not fall off to both sides of some latent, so no normal settles there")
    for _ in range(sweeps):
        for piece in pieces:
            moved = mean.clone()
            moved[..., piece] = (mean + _slope(value, mean) / precision)[..., piece]
            mean = moved
    return mean, precision.rsqrt()


class Settled(Inference):
    """q(tau | x) that ascends p's own bound for each datum, by coordinate ascent; it has no parameters.

    A latent of bits needs a log p*(x, tau) that is linear in each bit, as those of Boltzmann machines are, or another
    `value` that is convex in each, such as that of `SigmoidBound`. One of reals needs a log p* quadratic in each.

    What comes out is detached: at the fixed point the ELBO does not change with q (the envelope theorem), so that the
    gradient of p is whole without. The K-particle bounds have their gradient with q held still. With a `start`, few
    sweeps are differentiated through, and teach it where to begin.

    Args:
        size: latents Z, in a row.
        over: bits, or reals.
        sweeps: times that every latent moves.
        pieces: latents that move together, because log p* does not bend in them; by default each by itself.
        start: q to begin at, an `Inference` over Bits or normals; by default fair coins, or zeros.
        datum_dims: dimensions of one datum.
        value: makes of p, x and means the functional that is ascended; by default log p*(x, tau) at the means.
    """

    def __init__(
        self,
        size: int,
        *,
        over: str = "bits",
        sweeps: int = 10,
        pieces: Sequence[Sequence[int]] | None = None,
        start: Inference | None = None,
        datum_dims: int = 1,
        value: Callable[[Generation, Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if over not in ("bits", "reals") or sweeps < 1 or size < 1:
            raise UsageError(f"settled is over bits or reals, in at least 1 sweep, not {size} {over} in {sweeps}")
        self.size, self.over, self.sweeps, self.start, self.datum_dims = size, over, sweeps, start, datum_dims
        self.pieces = [[index] for index in range(size)] if pieces is None else [list(piece) for piece in pieces]
        if sorted(index for piece in self.pieces for index in piece) != list(range(size)):
            raise UsageError(f"pieces {self.pieces} must hold each of the {size} latents once")
        self.value = value or _log_joint
        self._p: tuple[Generation, ...] = ()  # in a tuple, so that its parameters are p's alone
        self._fits = False

    def bind(self, p: nn.Module) -> None:
        assert isinstance(p, Generation)
        wanted = boolean if self.over == "bits" else real
        if p.support is not None and not same(p.support, wanted):
            raise UsageError(f"settled over {self.over} does not fit latents of {describe(p.support)}")
        self._p, self._fits = (p,), False
        if self.start is not None:
            self.start.bind(p)

    def forward(self, x: Tensor) -> Distribution:
        if not self._p:
            raise UsageError("settled ascends the bound of p, and has seen none; make a JointBound of both")

        def value(mean: Tensor) -> Tensor:
            return self.value(self._p[0], x, mean)

        begin = self._begin(x)
        if not self._fits:
            require_fit(value, begin, self.pieces, over=self.over)
            self._fits = True
        if not (torch.is_grad_enabled() and begin.requires_grad):
            begin = begin.detach()
        if self.over == "bits":
            return Bits(settle(value, begin, self.pieces, self.sweeps))
        mean, scale = settle_normals(value, begin, self.pieces, self.sweeps)
        return Independent(Normal(mean, scale, validate_args=False), 1, validate_args=False)

    def _begin(self, x: Tensor) -> Tensor:
        if self.start is None:
            return x.new_zeros(*x.shape[: x.dim() - self.datum_dims], self.size)
        begun = self.start(x)
        if self.over == "reals":
            return begun.mean
        if not isinstance(begun, Bits):
            raise UsageError(f"settled over bits begins at Bits, but its start gives {type(begun).__name__}")
        return begun.logits


@torch.no_grad()
def require_fit(value: Functional, begin: Tensor, pieces: Sequence[Sequence[int]], *, over: str = "bits") -> None:
    """Refuse a functional on which a step of `settle`, or of `settle_normals`, may go down.

    On random lines through each piece it must not bend downwards, for bits; for reals, bend alike everywhere.

    Args:
        value: of means [..., Z].
        begin: where settling begins [..., Z], for its shape.
    Raises:
        UsageError: naming what may be done.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        low, high = (torch.rand(LINES, *begin.shape).to(begin) for _ in range(2))
    for piece in pieces:
        moved = low.clone()
        moved[..., piece] = high[..., piece]
        ends = (value(low) + value(moved)) / 2  # [LINES, ...]
        if over == "bits" and bool((value((low + moved) / 2) - ends > SLACK * (1 + ends.abs())).any()):
            raise UsageError(
                "mean field does not fit this p: its log p*(x, tau) bends within a piece of bits, so that a step may "
                "lower the bound; let each bit move by itself, or ascend a bound that fits, such as SigmoidBound"
            )
        if over == "reals" and any(
            not torch.allclose(_bend(value, low, index), _bend(value, high, index), rtol=SLACK, atol=SLACK)
            for index in piece
        ):
            raise UsageError(
                "normals do not fit this p: its log p*(x, tau) is not quadratic in each latent; use a network for q"
            )


def _log_joint(p: Generation, x: Tensor, mean: Tensor) -> Tensor:
    return p.log_joint(x, mean)


def listed_value(p: Generation, x: Tensor, mean: Tensor) -> Tensor:
    """E_q[log p*(x, tau)] of independent bits of given means, by listing every tau: [..., Z] to [...] nats.

    It is linear in each mean, whatever p: mean field on it finds the best independent bits for a p of few latents.

    Raises:
        UsageError: more than 12 bits.
    """
    if (size := mean.shape[-1]) > MAX_BITS:
        raise UsageError(f"2^{size} latents are too many to list; at most {MAX_BITS} bits")
    index = torch.arange(1 << size, device=mean.device).view(-1, *[1] * mean.dim())
    taus = (index >> torch.arange(size, device=mean.device) & 1).to(mean)  # [S, ..., Z]
    weight = torch.where(taus > 0, mean, 1 - mean).prod(-1)  # [S, ...]
    return (weight * p.log_joint(x, taus.expand(-1, *mean.shape))).sum(0)


def _slope(value: Functional, mean: Tensor) -> Tensor:
    """Gradient of each value in its means [..., Z], itself differentiable where the means are."""
    unrolled = torch.is_grad_enabled() and mean.requires_grad
    with torch.enable_grad():
        at = mean if unrolled else mean.detach().requires_grad_()
        return torch.autograd.grad(value(at).sum(), at, create_graph=unrolled)[0]


def _bend(value: Functional, mean: Tensor, index: int) -> Tensor:
    """-d^2 value / d m_index^2 at means [..., Z]: [...]; exact for a value that is quadratic in it."""
    step = torch.zeros_like(mean)
    step[..., index] = 1.0
    with torch.no_grad():
        return 2 * value(mean) - value(mean + step) - value(mean - step)
