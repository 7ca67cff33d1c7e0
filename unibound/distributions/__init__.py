"""Distributions that torch.distributions lacks, or has slower than this work can bear."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, constraints, kl_divergence
from torch.distributions.kl import register_kl
from torch.nn.functional import logsigmoid, sigmoid, softplus
from torch.types import _size

from unibound import kernels
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

    def elements(self, value: Tensor) -> Tensor:
        """log p of each element by itself [..., *X] in nats."""
        return type(self)(self.logits.unsqueeze(-1)).log_prob(value.unsqueeze(-1))

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
        if events := tuple(range(-self.reinterpreted_batch_ndims, 0)):  # a sum over no dimensions would be one over all
            square, log_scale = square.sum(events), log_scale.sum(events)
        return square * -0.5 - log_scale


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
