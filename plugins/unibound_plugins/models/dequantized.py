"""Dequantization: levels under a prior over reals, each level an interval of them, and q says where in it."""

import math
from itertools import pairwise
from typing import Literal

import attrs
import torch
from attrs.validators import deep_iterable, ge
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.nn.functional import logsigmoid
from torch.types import _size

from unibound import Directed, Generator, Inference, JointBound, Likelihood, Model, Prior, UsageError, hookimpl, support
from unibound.distributions import Logistic
from unibound.distributions.flattening import flatten
from unibound.draws import Drawn, draw
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
        inside: s, which says where [...], events [*X].
        count: n.
    """

    support = real  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    def __init__(self, level: Tensor, inside: Distribution, count: int) -> None:
        self.level, self.inside, self.count = level, inside, count
        self.dims = tuple(range(-len(inside.event_shape), 0))
        super().__init__(inside.batch_shape, inside.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inside.has_rsample

    @property
    def mean(self) -> Tensor:
        """The middle of each interval, which is not the mean but near it [..., *X]."""
        return located(self.level, torch.zeros_like(self.level), self.count)[0]

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        s, log_s = draw(self.inside, count, reparameterized=reparameterized)
        tau, slope = located(self.level, s, self.count)
        return tau, log_s - slope.sum(self.dims)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(tau | x) [...] in nats, -inf where tau is of other levels; value broadcasts against the batch."""
        s, slope, known = found(value, self.level, self.count)
        log_q = self.inside.log_prob(s) - slope.sum(self.dims)
        return torch.where(known.all(self.dims), log_q, -math.inf)


@flatten.register
def _(made: Spread, factor: float) -> Distribution | None:
    inside = flatten(made.inside, factor)
    return None if inside is None else Spread(made.level, inside, made.count)


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


class Noise(Inference):
    """q(tau | x): the level is x's, and where in its interval is chance, or what a network and chance make of it."""

    x_mean: Tensor

    def __init__(self, count: int, hidden: tuple[int, ...] | None, posterior: Likelihood, x_mean: Tensor) -> None:
        super().__init__()
        self.count, self.posterior, self.x_shape = count, posterior, tuple(x_mean.shape)
        self.network = None
        if hidden is not None:
            widths = [x_mean.numel(), *hidden]
            pairs = [(nn.Linear(fan_in, fan_out), nn.ELU()) for fan_in, fan_out in pairwise(widths)]
            outputs = nn.Linear(widths[-1], math.prod(posterior.outputs(self.x_shape)))
            self.network = nn.Sequential(*(module for pair in pairs for module in pair), outputs)
        self.register_buffer("x_mean", x_mean.flatten())

    def forward(self, x: Tensor) -> Distribution:
        level = (x * (self.count - 1)).round()
        if self.network is None:
            standard = Logistic(torch.zeros_like(level), level.new_ones(()))  # sigmoid(s) is then uniform
            return Spread(level, Independent(standard, len(self.x_shape), validate_args=False), self.count)
        outputs = self.network(x.flatten(-len(self.x_shape)) - self.x_mean)
        shaped = outputs.view(*outputs.shape[:-1], *self.posterior.outputs(self.x_shape))
        return Spread(level, self.posterior(shaped, self.x_shape), self.count)


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
    those that the prior finds likely (variational), drawn as sigmoid(s) with s read by the posterior's likelihood off a
    network's outputs. log w = log p(tau) - log q(tau | x) bounds the log-probability of levels, not a density: bits per
    dimension are those of a level, and an upper bound. Under a standard logistic prior and uniform noise they are
    log2 n for every x. Likelihood plays no part.

    Args:
        levels: how many there are, n.
        noise: where in the interval of its level an element lies: uniform, or variational, learned.
        hidden: widths of the hidden layers of the network that says so, if it is learned.

    Source: Theis, van den Oord and Bethge, "A note on the evaluation of generative models" (2016),
    https://arxiv.org/abs/1511.01844; variational: Ho, Chen, Srinivas, Duan and Abbeel, "Flow++" (2019),
    https://arxiv.org/abs/1902.00275, whose noise is a flow; the logit, Dinh, Sohl-Dickstein and Bengio (2017),
    https://arxiv.org/abs/1605.08803
    """

    levels: int = attrs.field(default=256, validator=ge(2))
    noise: Literal["uniform", "variational"] = "uniform"
    hidden: tuple[int, ...] = attrs.field(default=(100,), validator=deep_iterable(ge(1)))

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
        hidden = self.hidden if self.noise == "variational" else None
        q = Noise(self.levels, hidden, posterior, x_mean)
        return JointBound(q, Directed(prior, Rounding(self.levels, x_mean.dim())))


@hookimpl
def register_models(register):
    register("dequantized", Dequantized)
