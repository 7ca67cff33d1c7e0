"""The exam of a likelihood: the distribution it makes of numbers is one."""

import math
from collections.abc import Callable

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from unibound.draws import draw
from unibound.likelihood import Likelihood
from unibound.support import Constraint, describe, nonnegative_integer, of, real, same, values
from unibound.testing.laws.draws import NUM_DRAWS, follow_log_prob
from unibound.testing.listing import all_states, number
from unibound.testing.verdict import TOLERANCE, chi_square, demand, gap, mean_and_error

NODES = 10
"""Of the rule that integrates over one interval."""
HALVINGS = 40
"""An interval that is halved so often is one of rounding."""
ROUGH = 1e-10
"""By how much an interval and its halves may differ."""
MOST = 20_000
"""Intervals that are still rough: what needs more has no integral."""
MAX_STATES = 10_000
"""Events that a law lists."""


@attrs.frozen(eq=False)
class Subject:
    """A likelihood, with its settings as they are by default."""

    likelihood: Likelihood

    @classmethod
    def of(cls, plugin: Likelihood | Callable[[], Likelihood]) -> "Subject":
        """Prepare a likelihood, or what makes one when called."""
        return cls(plugin if isinstance(plugin, Likelihood) else plugin())

    def outputs(self, *shape: int, event: tuple[int, ...] = (), dtype: torch.dtype = torch.float64) -> Tensor:
        """What a network might say of a batch of events: [*shape, *outputs(event)]."""
        return torch.randn(*shape, *self.likelihood.outputs(event), dtype=dtype, requires_grad=True)

    def made(self, *shape: int, event: tuple[int, ...] = ()) -> Distribution:
        """A distribution of batch shape `shape`."""
        return self.likelihood(self.outputs(*shape, event=event), event)


def _listable(over: Constraint, most: int) -> tuple[int, ...]:
    """An event of at most so many elements of which a list of all holds not too many."""
    listed = values(over) or ()
    return (next((size for size in range(most, 1, -1) if len(listed) ** size <= MAX_STATES), 1),)


def _mean(made: Distribution) -> Tensor | None:
    """The mean [*X]; None where a distribution has none that could be had."""
    try:
        return made.mean
    except NotImplementedError:
        return None


def shapes_and_dtypes(subject: Subject) -> str:
    """Outputs [..., *outputs(X)] make a distribution of batch shape [...] and event shape [*X], over its support."""
    for event in ((3,), (2, 1, 3)):
        for dtype in (torch.float32, torch.float64):
            made = subject.likelihood(subject.outputs(5, 4, event=event, dtype=dtype), event)
            shapes = f"batch {list(made.batch_shape)} and event {list(made.event_shape)}"
            right = made.batch_shape == (5, 4) and made.event_shape == event
            demand(right, f"outputs [5, 4, *{list(subject.likelihood.outputs(event))}] made {shapes}")
            x = made.sample((2,))
            demand(x.shape == (2, 5, 4, *event), f"sample((2,)) has shape {list(x.shape)}")
            demand(x.dtype == dtype, f"sample is {x.dtype} for outputs in {dtype}")
            demand(not x.requires_grad, "sample carries a gradient")
            log_p = made.log_prob(x)
            demand(log_p.shape == (2, 5, 4), f"log_prob of [2, 5, 4, *X] has shape {list(log_p.shape)}")
            demand(log_p.dtype == dtype, f"log_prob is {log_p.dtype} for outputs in {dtype}")
            if (mean := _mean(made)) is not None:
                demand(mean.shape == (5, 4, *event), f"mean has shape {list(mean.shape)}")
    return "batch and event shapes, float32 and float64"


def sums_to_one(subject: Subject) -> str:
    """exp(log_prob) sums, or integrates, to one over its support."""
    over = subject.likelihood.support
    if values(over) is not None:
        event = _listable(over, 3)
        made, tolerance = subject.made(4, event=event), TOLERANCE
        total = made.log_prob(all_states(over, event).unsqueeze(1)).logsumexp(0)  # [4]
    elif same(over, real):
        made, tolerance = subject.made(4, event=(1,)), 1e-6
        total = integral(made).log()
    elif same(over, nonnegative_integer):
        made, tolerance = subject.made(4, event=(1,)), 1e-6
        total = made.log_prob(torch.arange(10_000, dtype=torch.float64).view(-1, 1, 1)).logsumexp(0)
    else:
        return f"does not apply: {describe(over)} are neither listed nor integrated"
    off = total.abs().max().item()
    demand(off <= tolerance, f"the log of the sum is {total.tolist()}, not 0; is a normalizer missing?")
    return f"log of the sum within {off:.1e} of 0"


def integral(made: Distribution) -> Tensor:
    """The integral of exp(log_prob) over the reals, for a distribution of batch shape [B] and event shape [1]: [B].

        int p(x) dx = int p(sinh t) cosh t dt,    t from -18 to 18

    Intervals are halved where Gauss and Legendre's rule and that of the two halves differ, so that kinks and jumps are
    found wherever they lie. Draws, and points farther out than these, are among the first ends, for peaks that are
    narrower than the first intervals.
    """
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(NODES))

    def rule(low: Tensor, high: Tensor) -> Tensor:
        """The integral over each interval [I, B]."""
        center, half = ((high + low) / 2).unsqueeze(1), ((high - low) / 2).unsqueeze(1)  # [I, 1]
        steps = center + half * nodes  # [I, n]
        log_p = made.log_prob(steps.sinh().view(-1, 1, 1)).view(*steps.shape, -1)  # [I, n, B]
        return ((half * weights * steps.cosh()).unsqueeze(2) * log_p.exp()).sum(1)

    drawn = made.sample((100,)).double().flatten(1)  # [100, B]
    center = drawn.median(0).values
    farther = torch.cat([center + 4**k * (drawn - center) for k in range(6)]).flatten().asinh().clamp(-18, 18)
    ends = torch.cat([torch.linspace(-18, 18, 1_001, dtype=torch.float64), farther]).unique()
    low, high, settled = ends[:-1], ends[1:], torch.zeros(made.batch_shape, dtype=torch.float64)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        left, right = rule(low, middle), rule(middle, high)
        rough = ((left + right - rule(low, high)).abs() > ROUGH).any(1)  # [I]
        settled += (left + right)[~rough].sum(0)
        low, high = torch.cat([low[rough], middle[rough]]), torch.cat([middle[rough], high[rough]])
        if not len(low):
            return settled
        if len(low) > MOST:
            return torch.full_like(settled, math.inf)
    return settled + rule(low, high).sum(0)


def support_is_true(subject: Subject) -> str:
    """Draws lie in the support that is declared, and are as frequent as log_prob says where they can be listed."""
    over = subject.likelihood.support
    event = _listable(over, 2)
    made = subject.made(event=event)
    told = of(made)
    demand(told is None or same(told, over), f"it says {describe(over)}, and its distribution {describe(told)}")
    x, log_p = draw(made, 20_000)
    demand(bool(over.check(x).all()), f"it says {describe(over)}, but draws values outside")
    off = gap(log_p.detach(), made.log_prob(x).detach())
    demand(off <= TOLERANCE, f"a draw is scored {off:.3g} nats off its log_prob")
    if values(over) is None:
        return f"20000 draws are {describe(over)}"
    statistic, limit = chi_square(number(x, over), made.log_prob(all_states(over, event)).exp().detach())
    demand(
        statistic <= limit,
        f"draws do not have the frequencies of log_prob: chi-square {statistic:.1f}, not {limit:.1f}",
    )
    return f"chi-square {statistic:.1f} of 20000 draws, limit {limit:.1f}"


def draws_have_the_mean(subject: Subject) -> str:
    """The mean of draws is `mean`, where there is one."""
    made = subject.made(3, event=(2,))
    if (mean := _mean(made)) is None:
        return "does not apply: it has no mean"
    x = made.sample((20_000,))
    worst = 0.0
    for draws, expected in zip(x.flatten(1).T, mean.flatten(), strict=True):
        mean, error = mean_and_error(draws)
        worst = max(worst, abs(mean - expected.item()) / error)
    demand(worst <= 5, f"the mean of draws is {worst:.1f} standard errors off `mean`")
    return f"within {worst:.1f} standard errors"


def draws_follow_log_prob(subject: Subject) -> str:
    """Draws have the frequencies of log_prob, and are independent of one another."""
    outputs = subject.outputs(2, event=(2,)).detach()
    x, _ = draw(subject.likelihood(outputs, (2,)), NUM_DRAWS)

    def log_prob(flat: Tensor) -> Tensor:
        return subject.likelihood(flat.view_as(outputs), (2,)).log_prob(x)

    return follow_log_prob(log_prob, outputs.flatten(), "of each of 2 events")


def gradients_are_finite(subject: Subject) -> str:
    """log_prob and its gradient stay finite for outputs as large as a hundred, in float32."""
    for scale in (1.0, 10.0, 100.0):
        outputs = scale * subject.outputs(50, event=(3,), dtype=torch.float32)
        made = subject.likelihood(outputs, (3,))
        x = subject.likelihood(subject.outputs(50, event=(3,), dtype=torch.float32), (3,)).sample()
        log_p = made.log_prob(x)
        (slope,) = torch.autograd.grad(log_p.sum(), outputs)
        demand(bool(log_p.isfinite().all()), f"log_prob is not finite for outputs of size {scale:.0f}")
        demand(bool(slope.isfinite().all()), f"the gradient is not finite for outputs of size {scale:.0f}")
        demand(bool((slope != 0).any()), "no gradient reaches the outputs")
    return "finite up to 100"


def reparameterized_or_not(subject: Subject) -> str:
    """has_rsample is true: gradients reach the outputs through rsample, which draws what sample draws."""
    outputs = subject.outputs(4, event=(3,))
    made = subject.likelihood(outputs, (3,))
    if not made.has_rsample:
        return "does not apply: has_rsample is false"
    (slope,) = torch.autograd.grad(made.rsample((7,)).sum(), outputs, allow_unused=True)
    demand(slope is not None and bool((slope != 0).any()), "rsample carries no gradient to the outputs")
    torch.manual_seed(3)
    first = made.sample((2,))
    torch.manual_seed(3)
    off = gap(made.rsample((2,)), first)
    demand(off <= TOLERANCE, f"rsample and sample differ by {off:.3g} under one seed")
    return "gradients flow through rsample"


LAWS = (
    shapes_and_dtypes,
    sums_to_one,
    support_is_true,
    draws_have_the_mean,
    draws_follow_log_prob,
    gradients_are_finite,
    reparameterized_or_not,
)
