"""Dequantization: levels under a prior over reals, each level an interval of them, and q says where in it."""

import math
from collections.abc import Sequence
from typing import Literal

import attrs
import torch
from attrs.validators import deep_iterable, ge
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.nn.functional import logsigmoid
from torch.types import _size

from unibound import Directed, Generator, Inference, JointBound, Likelihood, Model, Prior, UsageError, hookimpl, support
from unibound.distributions import Logistic, flows
from unibound.distributions.flattening import flatten
from unibound.draws import Drawn, draw
from unibound.networks import Bent
from unibound.support import Constraint, describe, real, same


def located(level: Tensor, inside: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Where in the reals it is: tau = logit((k + u) / n), u = sigmoid(s); and log dtau/ds, elementwise.

    Args:
        level: k [...].
        inside: s [...].
        count: n.
    """
    up, down = logsigmoid(inside), logsigmoid(-inside)  # log u, log(1 - u)
    below = torch.logaddexp(level.log(), up)  # log(k + u)
    above = torch.logaddexp((count - 1 - level).log(), down)  # log(n - k - u)
    return below - above, math.log(count) + up + down - below - above


def within(tau: Tensor, level: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """How far into the interval of a level tau lies, seen from the closer end of all levels, where rounding is least.

    Returns:
        u, or 1 - u where tau is above 0, whether that is a place in the interval, and log of sigmoid(-|tau|). A draw of
        the level that was rounded to beyond its edge is in it all the same.
    """
    eps, log_end = count * torch.finfo(tau.dtype).eps, logsigmoid(-tau.abs())
    near = torch.where(tau < 0, level, count - 1 - level)
    u = log_end.exp() * count - near
    least = torch.where(near > 0, eps, torch.finfo(tau.dtype).tiny)  # at the end itself nothing was taken away
    return torch.maximum(u, least).clamp(max=1 - eps), (u >= -eps) & (u <= 1 + eps), log_end


def found(tau: Tensor, level: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The s of `located` that leads from a level to tau, log dtau/ds there, and whether there is one; elementwise."""
    u, known, log_end = within(tau, level, count)
    log_u, log_rest = u.log(), torch.log1p(-u)
    s = torch.where(tau < 0, 1.0, -1.0) * (log_u - log_rest)
    return s, log_u + log_rest - math.log(count) - 2 * log_end - tau.abs(), known


class Spread(Drawn):
    """Reals that stand for levels, each somewhere in the interval of its own: q(tau | x).

    Args:
        level: k of n [..., *X].
        inside: s, which says where: events [D], the elements of a datum in a row.
        count: n.
        event_shape: the shape of a datum [*X].
    """

    support = real  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def __init__(self, level: Tensor, inside: Distribution, count: int, event_shape: Sequence[int]) -> None:
        self.level, self.inside, self.count = level, inside, count
        super().__init__(inside.batch_shape, torch.Size(event_shape), validate_args=False)

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inside.has_rsample

    @property
    def mean(self) -> Tensor:
        """The middle of each interval, which is not the mean but near it [..., *X]."""
        return located(self.level, torch.zeros_like(self.level), self.count)[0]

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        s, log_s = draw(self.inside, count, reparameterized=reparameterized)
        tau, slope = located(self.level, s.unflatten(-1, self.event_shape), self.count)
        return tau, log_s - self._row(slope).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(tau | x) [...] in nats, -inf where tau is of other levels; value broadcasts against the batch."""
        s, slope, known = (self._row(each) for each in found(value, self.level, self.count))
        return torch.where(known.all(-1), self.inside.log_prob(s) - slope.sum(-1), -math.inf)

    def _row(self, elements: Tensor) -> Tensor:
        return elements.flatten(-len(self.event_shape))


@flatten.register
def _(made: Spread, factor: float) -> Distribution | None:
    inside = flatten(made.inside, factor)
    return None if inside is None else Spread(made.level, inside, made.count, made.event_shape)


class Rounded(Distribution):
    """The levels in whose intervals reals lie, for certain: p(x | tau).

    Args:
        tau: reals [..., *X].
        count: how many levels, n.
        event_dims: dimensions of an event.
    """

    arg_constraints = {}  # noqa: RUF012 - the name torch.distributions looks up  # pyright: ignore

    def __init__(self, tau: Tensor, count: int, event_dims: int) -> None:
        self.tau, self.count = tau, count
        self.dims, split = tuple(range(-event_dims, 0)), tau.dim() - event_dims
        super().__init__(tau.shape[:split], tau.shape[split:], validate_args=False)

    @property
    def support(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return support.levels(self.count)

    @property
    def mean(self) -> Tensor:
        return (self.tau.sigmoid() * self.count).floor().clamp(0, self.count - 1) / (self.count - 1)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        return self.mean.detach().expand(self._extended_shape(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """0 where tau lies in the intervals of these levels, -inf elsewhere [...]."""
        _, known, _ = within(self.tau, (value * (self.count - 1)).round(), self.count)
        known = known.all(self.dims)
        return torch.zeros_like(known, dtype=self.tau.dtype).masked_fill(~known, -math.inf)


class Even(Inference):
    """s of which every place in an interval is as likely: sigmoid(s) is uniform."""

    def forward(self, x: Tensor) -> Distribution:
        return Independent(Logistic(torch.zeros_like(x), x.new_ones(())), 1, validate_args=False)


class Noise(Inference):
    """q(tau | x): the level is x's, and where in its interval is drawn.

    Args:
        count: levels n.
        x_shape: the shape of a datum [*X].
        inside: q(s | x) of data in a row, which says where.
    """

    def __init__(self, count: int, x_shape: tuple[int, ...], inside: Inference) -> None:
        super().__init__()
        self.count, self.x_shape, self.inside = count, x_shape, inside

    def forward(self, x: Tensor) -> Distribution:
        level = (x * (self.count - 1)).round()
        return Spread(level, self.inside(x.flatten(-len(self.x_shape))), self.count, self.x_shape)


class Rounding(Generator):
    """p(x | tau): tau, rounded to its levels."""

    def __init__(self, count: int, event_dims: int) -> None:
        super().__init__()
        self.count, self.event_dims = count, event_dims

    def forward(self, tau: Tensor) -> Distribution:
        return Rounded(tau, self.count, self.event_dims)


@attrs.frozen
class Dequantized(Model):
    """A prior over reals as a model of levels: p(x) is the mass of the reals that round to x.

        tau = logit((k + u) / n),   p(x) = integral over u in (0, 1) of p(tau) |dtau/du|,   x = k / (n - 1)

    k the level of an element, n how many there are, and q(tau | x) says which u explain it: all alike (uniform), or
    those that the prior finds likely, drawn as sigmoid(s) with s read by the posterior's likelihood off a network's
    outputs (variational). A flow bends that s, so that the noise of one element knows of another's. log w = log p(tau)
    - log q(tau | x) bounds the log-probability of levels, not a density: bits per dimension are those of a level, and
    an upper bound. Under a standard logistic prior and uniform noise they are log2 n for every x. Likelihood plays no
    part.

    Args:
        levels: how many there are, n.
        noise: where in the interval of its level an element lies: uniform, or learned, as variational or flow, which
            needs the extra `flows`.
        hidden: widths of the hidden layers of the network that says so, if it is learned.
        kind: of the flow: planar, maf, iaf, coupling or spline.
        num_layers: its maps, one after another.
        flow_hidden: widths of the networks inside each of them.
        context: numbers by which each of them sees x.

    Source: Theis, van den Oord and Bethge, "A note on the evaluation of generative models" (2016),
    https://arxiv.org/abs/1511.01844; learned: Ho, Chen, Srinivas, Duan and Abbeel, "Flow++" (2019),
    https://arxiv.org/abs/1902.00275, whose flow is convolutional; the logit, Dinh, Sohl-Dickstein and Bengio (2017),
    https://arxiv.org/abs/1605.08803
    """

    levels: int = attrs.field(default=256, validator=ge(2))
    noise: Literal["uniform", "variational", "flow"] = "uniform"
    hidden: tuple[int, ...] = attrs.field(default=(100,), validator=deep_iterable(ge(1)))
    kind: flows.Kind = "coupling"
    num_layers: int = attrs.field(default=4, validator=ge(1))
    flow_hidden: tuple[int, ...] = attrs.field(default=(64,), validator=deep_iterable(ge(1)))
    context: int = attrs.field(default=20, validator=ge(1))

    def data_support(self, prior: Constraint | None, likelihood: Likelihood) -> Constraint | None:
        return support.levels(self.levels)

    def prior_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return x_shape

    def assemble(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        over = posterior.support if prior.support is None else prior.support
        if not same(over, real):
            raise UsageError(
                f"dequantized makes reals of levels, but its latents are {describe(over)}; use a prior over reals"
            )
        inside = Even() if self.noise == "uniform" else self.learned(posterior, x_mean.flatten())
        q = Noise(self.levels, tuple(x_mean.shape), inside)
        return JointBound(q, Directed(prior, Rounding(self.levels, x_mean.dim())))

    def learned(self, posterior: Likelihood, x_mean: Tensor) -> Bent:
        """q(s | x) of data in a row, of mean [D]."""
        size, count = len(x_mean), self.num_layers if self.noise == "flow" else 0
        layers = flows.layers(self.kind, count, size, self.context, self.flow_hidden) if count else nn.ModuleList()
        return Bent(self.hidden, posterior, size, layers, self.context, x_mean, undo=self.kind == "maf")


@hookimpl
def register_models(register):
    register("dequantized", Dequantized)
