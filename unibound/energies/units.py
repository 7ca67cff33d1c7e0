"""Units of a Boltzmann machine: what each does by itself, and what a field makes of it.

    p(u | field) = m(u) exp(field . s(u)) / exp(A(field)),   A(field) = log sum_u m(u) exp(field . s(u))

m is the measure and s the statistics of a kind of unit; A, the log-partition, is all that summing a unit out takes.
log m is linear in the natural parameters that a record holds, so that a mean of two records by beta is the geometric
path between two measures.

Shapes: N units, D numbers of all their statistics. Everything is in nats.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, Self

import attrs
import torch
from torch import Tensor
from torch.distributions import Binomial, Distribution, Independent, Normal, constraints
from torch.nn.functional import embedding_bag, one_hot, softplus
from torch.types import _size

from unibound.distributions import Bits
from unibound.distributions.discrete import Categories, Spins
from unibound.distributions.truncated import Rectified
from unibound.support import Constraint, boolean, integer_interval, real, spin

NO_FIELD = torch.zeros(())


@attrs.frozen(eq=False)
class Units(ABC):
    """Independent units of one kind. A record of natural parameters, `bias` [D] first; final subclasses are frozen."""

    bias: Tensor

    @property
    @abstractmethod
    def support(self) -> Constraint:
        """What a unit is."""

    @property
    def num_units(self) -> int:
        """N."""
        return len(self.bias)

    @property
    def naturals(self) -> dict[str, Tensor]:
        """The natural parameters by name."""
        fields = attrs.asdict(self, recurse=False)
        return {name: value for name, value in fields.items() if isinstance(value, Tensor)}

    def toward(self, other: Self, beta: float) -> Self:
        """The measure m^beta m'^(1 - beta), with m' that of other units of the same kind."""
        theirs = other.naturals
        between = {name: beta * own + (1 - beta) * theirs[name] for name, own in self.naturals.items()}
        return attrs.evolve(self, **between)

    def free(self) -> Self:
        """The same units with no bias."""
        return attrs.evolve(self, bias=torch.zeros_like(self.bias))

    def double(self) -> Self:
        """The same in float64."""
        return attrs.evolve(self, **{name: own.double() for name, own in self.naturals.items()})

    def onto(self, u: Tensor, weight: Tensor) -> Tensor:
        """s(u) of u [..., N], times a weight [D, E]: [..., E]."""
        return u @ weight

    def log_measure(self, u: Tensor) -> Tensor:
        """log m(u) of all units: [..., N] to [...] nats."""
        return u @ self.bias

    @abstractmethod
    def log_partition(self, field: Tensor = NO_FIELD) -> Tensor:
        """A(field), summed over units: [..., D] to [...] nats."""

    @abstractmethod
    def given(self, field: Tensor = NO_FIELD) -> Distribution:
        """The units in a field [..., D]: batch shape [...], event shape [N]."""

    def log_prob(self, u: Tensor, field: Tensor) -> Tensor:
        """log p(u | field) of every u [S, N] in every field [G, D]: [S, G] nats."""
        return self.log_measure(u).unsqueeze(1) + self.onto(u, field.mT) - self.log_partition(field)

    @abstractmethod
    def fitted(self, u: Tensor) -> Self:
        """Units without a field that resemble draws [M, N]."""


@attrs.frozen(eq=False)
class BitUnits(Units):
    """0 and 1: A(t) = softplus(t)."""

    @property
    def support(self) -> Constraint:
        return boolean

    def log_partition(self, field: Tensor = NO_FIELD) -> Tensor:
        return softplus(self.bias + field).sum(-1)

    def given(self, field: Tensor = NO_FIELD) -> Distribution:
        return Bits(self.bias + field)

    def fitted(self, u: Tensor) -> Self:
        # Smoothed as Salakhutdinov and Murray (2008) intend, but with a rate that never reaches 1.
        return attrs.evolve(self, bias=((u.double().sum(0) + 1) / (len(u) + 2)).logit().to(self.bias))


@attrs.frozen(eq=False)
class SpinUnits(Units):
    """-1 and 1: A(t) = log 2 cosh t."""

    @property
    def support(self) -> Constraint:
        return spin

    def log_partition(self, field: Tensor = NO_FIELD) -> Tensor:
        total = self.bias + field
        return (softplus(2 * total) - total).sum(-1)

    def given(self, field: Tensor = NO_FIELD) -> Distribution:
        return Spins(2 * (self.bias + field))

    def fitted(self, u: Tensor) -> Self:
        rate = ((u.double() + 1).sum(0) / 2 + 1) / (len(u) + 2)
        return attrs.evolve(self, bias=(rate.logit() / 2).to(self.bias))


@attrs.frozen(eq=False)
class CategoryUnits(Units):
    """0 .. q - 1, each with a parameter of its own, unit by unit [N * q]: A(t) = logsumexp over the categories.

    Args:
        num_categories: q.
    """

    num_categories: int

    @property
    def num_units(self) -> int:
        return len(self.bias) // self.num_categories

    @property
    def support(self) -> Constraint:
        return integer_interval(0, self.num_categories - 1)

    def onto(self, u: Tensor, weight: Tensor) -> Tensor:
        return _rows(u, self.num_categories, weight)

    def log_measure(self, u: Tensor) -> Tensor:
        return _rows(u, self.num_categories, self.bias.unsqueeze(1)).squeeze(-1)

    def log_partition(self, field: Tensor = NO_FIELD) -> Tensor:
        return self._logits(field).logsumexp(-1).sum(-1)

    def given(self, field: Tensor = NO_FIELD) -> Distribution:
        return Categories(self._logits(field))

    def fitted(self, u: Tensor) -> Self:
        counts = one_hot(u.long(), self.num_categories).double().sum(0) + 1  # [N, q]
        log_rate = (counts / counts.sum(1, keepdim=True)).log()
        return attrs.evolve(self, bias=log_rate.flatten().to(self.bias))

    def _logits(self, field: Tensor) -> Tensor:
        return (self.bias + field).unflatten(-1, (-1, self.num_categories))


@attrs.frozen(eq=False)
class RealUnits(Units):
    """Reals under exp(bias u - precision u^2 / 2 + constant): normal in any field.

    Args:
        precision: [N], positive.
        constant: [N] nats, of no meaning to the distribution.
    """

    precision: Tensor
    constant: Tensor

    @classmethod
    def of(cls, mean: Tensor, scale: Tensor) -> Self:
        """exp(-(u - mean)^2 / (2 scale^2))."""
        precision = scale**-2
        return cls(mean * precision, precision, -mean.square() * precision / 2)

    @property
    def support(self) -> Constraint:
        return real

    def log_measure(self, u: Tensor) -> Tensor:
        return (u * self.bias - u.square() * self.precision / 2 + self.constant).sum(-1)

    def log_partition(self, field: Tensor = NO_FIELD) -> Tensor:
        bent = (self.bias + field).square() / (2 * self.precision)
        return (self.constant + bent + (2 * math.pi / self.precision).log() / 2).sum(-1)

    def given(self, field: Tensor = NO_FIELD) -> Distribution:
        mean = (self.bias + field) / self.precision
        return Independent(Normal(mean, self.precision.rsqrt(), validate_args=False), 1, validate_args=False)

    def fitted(self, u: Tensor) -> Self:
        # No narrower than the units themselves, or the path would have to widen.
        variance = torch.maximum(u.double().var(0, correction=0), self.precision.double() ** -1)
        made = type(self).of(u.double().mean(0), variance.sqrt())
        return attrs.evolve(self, **{name: value.to(self.bias) for name, value in made.naturals.items()})


class _Tied(Binomial):
    """Drawn as that many bits, which is quicker while they are few; torch draws by waiting times."""

    def sample(self, sample_shape: _size = ()) -> Tensor:
        with torch.no_grad():
            count = torch.zeros(self._extended_shape(torch.Size(sample_shape))).to(self.probs)
            for _ in range(int(self.total_count.max())):
                count += torch.rand_like(count) < self.probs
            return count


@attrs.frozen(eq=False)
class CountUnits(Units):
    """0 .. n under binomial coefficients, which is n bits tied together: A(t) = n softplus(t).

    Args:
        most: n.
    """

    most: int

    @property
    def support(self) -> Constraint:
        return integer_interval(0, self.most)

    def log_measure(self, u: Tensor) -> Tensor:
        ways = math.lgamma(self.most + 1) - (u + 1).lgamma() - (self.most - u + 1).lgamma()
        return u @ self.bias + ways.sum(-1)

    def log_partition(self, field: Tensor = NO_FIELD) -> Tensor:
        return self.most * softplus(self.bias + field).sum(-1)

    def given(self, field: Tensor = NO_FIELD) -> Distribution:
        counts = _Tied(self.most, logits=self.bias + field, validate_args=False)
        return Independent(counts, 1, validate_args=False)

    def fitted(self, u: Tensor) -> Self:
        rate = (u.double().sum(0) + 1) / (self.most * len(u) + 2)
        return attrs.evolve(self, bias=rate.logit().to(self.bias))


@attrs.frozen(eq=False)
class RectifiedUnits(Units):
    """Reals from 0 on under exp(bias u - p u^2 / 2): A(t) = log sqrt(2 pi / p) + t^2 / 2p + log Phi(t / sqrt p).

    Args:
        precision: p [N], positive.

    Source: Nair and Hinton, "Rectified linear units improve restricted Boltzmann machines" (2010),
    https://www.cs.toronto.edu/~hinton/absps/reluICML.pdf, whose units these are but for the noise.
    """

    precision: Tensor

    @property
    def support(self) -> Constraint:
        return constraints.nonnegative

    def log_measure(self, u: Tensor) -> Tensor:
        return (u * self.bias - u.square() * self.precision / 2).sum(-1)

    def log_partition(self, field: Tensor = NO_FIELD) -> Tensor:
        total = self.bias + field
        bent = total.square() / (2 * self.precision) + torch.special.log_ndtr(total * self.precision.rsqrt())
        return (bent + (2 * math.pi / self.precision).log() / 2).sum(-1)

    def given(self, field: Tensor = NO_FIELD) -> Distribution:
        rectified = Rectified((self.bias + field) / self.precision, self.precision.rsqrt())
        return Independent(rectified, 1, validate_args=False)

    def fitted(self, u: Tensor) -> Self:
        return attrs.evolve(self, bias=(u.mean(0) * self.precision).to(self.bias))


def _rows(u: Tensor, num_categories: int, weight: Tensor) -> Tensor:
    """Sum of the rows of a weight [N * q, E] that codes u [..., N] pick: [..., E]."""
    index: Any = u.long() + num_categories * torch.arange(u.shape[-1], device=u.device)
    return embedding_bag(index.view(-1, u.shape[-1]), weight, mode="sum").view(*u.shape[:-1], -1)
