"""Distributions that torch.distributions lacks, or has slower than this work can bear."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, constraints, kl_divergence
from torch.distributions.kl import register_kl
from torch.nn.functional import logsigmoid, sigmoid, softplus
from torch.types import _size

from unibound import kernels
from unibound.errors import UsageError
from unibound.support import Constraint


class Bits(Distribution):
    """Independent bits with given logits: batch shape [...], event shape [*X].

    `Independent(Bernoulli(logits), n)` in one class: three times cheaper to draw, and a log_prob that
    keeps no elementwise intermediate.

    Args:
        logits: log p / (1 - p) of each bit [..., *X]; never clamped.
        event_dims: how many trailing dimensions are one event.
    """

    support = constraints.boolean  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    arg_constraints = {}  # noqa: RUF012 # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    has_rsample = False

    def __init__(self, logits: Tensor, event_dims: int = 1) -> None:
        self.logits = logits
        split = logits.dim() - event_dims
        super().__init__(logits.shape[:split], logits.shape[split:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return sigmoid(self.logits)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            uniform = torch.rand(
                self._extended_shape(torch.Size(sample_shape)), dtype=self.logits.dtype, device=self.logits.device
            )
            return uniform.lt_(self.mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value) [...] in nats; value broadcasts against the logits."""
        events = len(self.event_shape)
        logits, bits = self.logits.flatten(-events), value.flatten(-events)
        return kernels.bernoulli_log_prob(logits, bits)

    def entropy(self) -> Tensor:
        """Entropy [...] in nats."""
        bitwise = softplus(self.logits) - self.logits * self.mean
        return bitwise.flatten(-len(self.event_shape)).sum(-1)


class Normals(Independent):
    """`Independent(Normal(mean, scale), n)`, whose log_prob takes the logarithms at the shape of the scale.

    Half the passes over K draws of one posterior, or over all draws of one prior.
    """

    base_dist: Normal

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value) [...] in nats; value broadcasts against the mean."""
        log_scale = self.base_dist.scale.log() + math.log(2 * math.pi) / 2
        square = ((value - self.base_dist.loc) / self.base_dist.scale).square()
        if not (events := tuple(range(-self.reinterpreted_batch_ndims, 0))):
            return -square / 2 - log_scale  # a sum over no dimensions would be one over all
        return -square.sum(events) / 2 - log_scale.sum(events)


class PointMass(Distribution):
    """All probability on one value: batch shape [...], event shape [*X].

    log_prob is that of a discrete distribution, 0 at the value and -inf elsewhere, also over reals: where
    one point mass undoes another, as in the identity model, their infinite densities would cancel.

    Args:
        value: where the mass is [..., *X].
        event_dims: how many trailing dimensions are one event.
        support: what the value is one of, where that is known.
    """

    arg_constraints = {}  # noqa: RUF012 - the name torch.distributions looks up  # pyright: ignore
    has_rsample = True

    def __init__(self, value: Tensor, event_dims: int = 1, support: Constraint | None = None) -> None:
        self.value, self._support = value, support
        split = value.dim() - event_dims
        super().__init__(value.shape[:split], value.shape[split:], validate_args=False)

    @property
    def support(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        if self._support is None:
            raise NotImplementedError
        return self._support

    @property
    def mean(self) -> Tensor:
        return self.value

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        return self.value.expand(self._extended_shape(torch.Size(sample_shape)))

    def sample(self, sample_shape: _size = ()) -> Tensor:
        return self.rsample(sample_shape).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        """0 where value equals the point, -inf elsewhere [...]; value broadcasts against the point."""
        same = (value == self.value).flatten(-len(self.event_shape)).all(-1)
        return torch.zeros_like(same, dtype=self.value.dtype).masked_fill(~same, -math.inf)

    def entropy(self) -> Tensor:
        """Entropy [...] in nats, which is zero."""
        return self.value.new_zeros(self.batch_shape)


class Logistic(Distribution):
    """Logistic distribution: batch shape [...], one real per event.

        p(x) = sigmoid(z) sigmoid(-z) / s,   z = (x - m) / s

    Args:
        location: m [...].
        scale: s [...], positive; broadcasts against the location.
    """

    support = constraints.real  # pyright: ignore
    arg_constraints = {}  # noqa: RUF012 - the name torch.distributions looks up  # pyright: ignore
    has_rsample = True

    def __init__(self, location: Tensor, scale: Tensor) -> None:
        self.location, self.scale = torch.broadcast_tensors(location, scale)
        super().__init__(self.location.shape, validate_args=False)

    def expand(self, batch_shape: _size, _instance: object = None) -> "Logistic":
        return Logistic(self.location.expand(batch_shape), self.scale.expand(batch_shape))

    @property
    def mean(self) -> Tensor:
        return self.location

    @property
    def variance(self) -> Tensor:
        return (self.scale * math.pi).square() / 3

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        uniform = torch.rand(shape, dtype=self.location.dtype, device=self.location.device)
        # 0 can be drawn, and 1 rounded to; both would be infinite.
        return self.location + self.scale * uniform.logit(eps=torch.finfo(uniform.dtype).eps)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(value) [...] in nats; value broadcasts against the parameters."""
        z = (value - self.location) / self.scale
        return logsigmoid(z) + logsigmoid(-z) - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        return sigmoid((value - self.location) / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        return self.location + self.scale * value.logit()

    def entropy(self) -> Tensor:
        """Entropy [...] in nats."""
        return self.scale.log() + 2


@register_kl(Independent, MultivariateNormal)
def _kl_independent_multivariate(q: Independent, p: MultivariateNormal) -> Tensor:
    """KL of independent normals from correlated ones, which torch lacks: [...] nats."""
    if not isinstance(q.base_dist, Normal) or len(q.event_shape) != 1:
        raise NotImplementedError
    return kl_divergence(MultivariateNormal(q.mean, scale_tril=q.stddev.diag_embed(), validate_args=False), p)


def pairwise_log_prob(distribution: Distribution, value: Tensor) -> Tensor:
    """log-probability of every value under every one of a batch: [..., *X] and batch [N] to [..., N] nats."""
    events = len(distribution.event_shape)
    if isinstance(distribution, Bits):  # a matrix product, where broadcasting would make [..., N, *X]
        logits = distribution.logits.flatten(1)  # [N, D]
        return value.flatten(-events) @ logits.mT - softplus(logits).sum(-1)
    return distribution.log_prob(value.unsqueeze(-events - 1))


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
    if reparameterized and not made.has_rsample:
        raise UsageError(f"{type(made).__name__} has no reparameterized draws; use an estimator that needs none")
    value = made.rsample((count,)) if reparameterized else made.sample((count,))
    return value, made.log_prob(value)


class Chain(Drawn):
    """Pieces drawn one after another, each given those before it, side by side in one tensor [..., Z_1 + ... + Z_L].

        q(tau) = q_1(tau_1) q_2(tau_2 | tau_1) ... q_L(tau_L | tau_1 .. tau_{L-1})

    Draws of the whole chain are independent: K of them run through every layer.

    Args:
        first: distribution of the first piece: batch shape [...], event shape [Z_1].
        rest: of each later piece, what makes its distribution of the pieces so far, each [..., Z_l].
        sizes: Z_1 .. Z_L.
    """

    def __init__(
        self, first: Distribution, rest: Sequence[Callable[[list[Tensor]], Distribution]], sizes: Sequence[int]
    ) -> None:
        if tuple(first.event_shape) != (sizes[0],) or len(rest) + 1 != len(sizes):
            raise UsageError(
                f"a chain of sizes {list(sizes)} has {len(rest) + 1} pieces, the first of shape "
                f"{list(first.event_shape)}; give one size per piece, that of its events"
            )
        self.first, self.rest, self.sizes = first, tuple(rest), list(sizes)
        super().__init__(first.batch_shape, torch.Size([sum(sizes)]), validate_args=False)

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether every piece has reparameterized draws, which takes a draw of each to find out."""
        pieces, made = [], self.first
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for make in (*self.rest, None):
                if not made.has_rsample:
                    return False
                if make is not None:
                    pieces.append(made.sample())
                    made = make(pieces)
        return True

    def log_probs(self, value: Tensor) -> Tensor:
        """log-probability of each piece given those before it: [..., Z] to [L, ...] nats."""
        pieces = list(value.split(self.sizes, -1))
        later = [make(pieces[:index]).log_prob(pieces[index]) for index, make in enumerate(self.rest, 1)]
        return torch.stack(torch.broadcast_tensors(self.first.log_prob(pieces[0]), *later))

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(value) [...] in nats; value broadcasts against the batch."""
        return self.log_probs(value).sum(0)

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        piece, log_q = draw(self.first, count, reparameterized=reparameterized)
        pieces = [piece]
        for make in self.rest:
            piece, log_piece = draw(make(pieces), 1, reparameterized=reparameterized)
            pieces.append(piece.squeeze(0))
            log_q = log_q + log_piece.squeeze(0)
        return torch.cat(pieces, -1), log_q
