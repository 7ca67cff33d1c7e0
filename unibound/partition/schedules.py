"""Temperatures of an annealing path, handed out a block at a time so that memory does not grow with their number."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import attrs
import torch
from torch import Tensor

from unibound.energies.energy import EnergyPrior
from unibound.errors import UsageError

Name = Literal["linear", "piecewise", "sigmoid", "adaptive"]
NAMES: tuple[str, ...] = get_args(Name)

BLOCK = 1000
"""Temperatures swept per call of `EnergyPrior.anneal`."""

SEGMENTS = ((500, 0.5), (4000, 0.9), (10000, 1.0))
"""Salakhutdinov and Murray (2008): how many steps lead up to which temperature."""

STEEPNESS = 4.0


@attrs.frozen(eq=False)
class Schedule:
    """T + 1 temperatures that rise from 0 to 1.

    Args:
        num_temperatures: transitions T.
        at: maps numbers of temperatures [N], each in 0..T, to the temperatures [N], float64.
    """

    num_temperatures: int
    at: Callable[[Tensor], Tensor]

    def blocks(self, *, falling: bool = False, size: int = BLOCK) -> Iterator[Tensor]:
        """Stretches of the path, each at most [size + 1] and beginning where the one before it ended."""
        total = self.num_temperatures
        for start in range(0, total, size):
            index = torch.arange(start, min(start + size, total) + 1)
            yield self.at(total - index if falling else index)


def make(
    name: str, num_temperatures: int | None = None, prior: EnergyPrior | None = None, *, pilot_chains: int = 100
) -> Schedule:
    """A schedule by name.

    Args:
        name: `linear`; `piecewise`, that of Salakhutdinov and Murray, ever finer towards 1; `sigmoid`, fine at
            both ends; or `adaptive`, which holds the conditional effective sample size.
        num_temperatures: transitions T; by default 1000, or the 14,500 of the paper for `piecewise`.
        prior: what is annealed; only `adaptive` looks at it.
        pilot_chains: chains that find the adaptive schedule, and are then thrown away.

    Raises:
        UsageError: an unknown name, fewer than one transition, or nothing to adapt to.
    Source: Salakhutdinov and Murray, "On the quantitative analysis of deep belief networks" (2008),
    https://www.cs.toronto.edu/~rsalakhu/papers/dbn_ais.pdf; the sigmoid is that of Grosse, Ghahramani and Adams,
    "Sandwiching the marginal likelihood using bidirectional Monte Carlo" (2015), https://arxiv.org/abs/1511.02543
    """
    if name not in NAMES:
        raise UsageError(f"unknown schedule {name!r}; there are: {', '.join(NAMES)}")
    own = sum(count for count, _ in SEGMENTS) if name == "piecewise" else 1000
    total = own if num_temperatures is None else num_temperatures
    if total < 1:
        raise UsageError(f"num_temperatures must be at least 1, not {total}")
    if name == "linear":
        return Schedule(total, lambda index: index.double() / total)
    if name == "sigmoid":
        edge = math.tanh(STEEPNESS / 2)
        return Schedule(total, lambda index: (torch.tanh(STEEPNESS * (index.double() / total - 0.5)) / edge + 1) / 2)
    if name == "piecewise":
        return _interpolate(*_corners(total), total)
    if prior is None:
        raise UsageError("the adaptive schedule needs the prior it adapts to")
    return adapt(prior, total, num_chains=pilot_chains)


def choose(
    name: str, num_temperatures: int | None, betas: Sequence[float], prior: EnergyPrior | None = None
) -> Schedule:
    """One's own temperatures if there are any, else the schedule of that name."""
    return of(betas) if len(betas) else make(name, num_temperatures, prior)


def field() -> Any:
    """An attrs field that holds the name of a schedule."""
    return attrs.field(default="linear", validator=_is_known)


def _is_known(instance: Any, attribute: Any, value: Any) -> None:
    if value not in NAMES:
        who = type(instance).__name__.lower()
        raise UsageError(f"{who}: {attribute.name} must be one of {', '.join(NAMES)}, not {value!r}")


def betas_field() -> Any:
    """An attrs field that holds temperatures of one's own, none by default."""
    return attrs.field(default=(), validator=_rises)


def _rises(instance: Any, attribute: Any, value: Any) -> None:
    if len(value):
        try:
            of(value)
        except UsageError as error:
            who = type(instance).__name__.lower()
            raise UsageError(f"{who}: {attribute.name}: {error}; leave them out for a schedule") from error


def of(betas: Sequence[float]) -> Schedule:
    """A schedule of one's own.

    Raises:
        UsageError: temperatures that do not rise from 0 to 1.
    """
    values = torch.tensor([float(beta) for beta in betas], dtype=torch.float64)
    if len(values) < 2 or values[0] != 0 or values[-1] != 1 or not (values.diff() > 0).all():
        shown = ", ".join(f"{beta:g}" for beta in betas[:6]) + (", ..." if len(betas) > 6 else "")
        raise UsageError(f"temperatures must rise from 0 to 1, each above the one before, but are {shown or 'none'}")
    return Schedule(len(values) - 1, lambda index: values[index])


def coarser(schedule: Schedule, factor: int) -> Schedule:
    """The same path by about one in `factor` of its temperatures."""
    total = max(1, schedule.num_temperatures // factor)
    return Schedule(total, lambda index: schedule.at((index * schedule.num_temperatures) // total))


@torch.no_grad()
def adapt(prior: EnergyPrior, num_temperatures: int, *, num_chains: int = 100) -> Schedule:
    """A schedule along which every step costs the same conditional effective sample size.

    Over a small step that is 1 - Var(step of log w), and the standard deviation of a step grows with its
    length. A pilot run on an even path measures that growth; temperatures are then set at equal shares of
    its sum. The pilot's chains are not used again: a schedule fitted to the chains it weighs would spoil
    E[w] = Z / Z_0.

    Source: Zhou, Johansen and Aston, "Toward automatic model comparison: an adaptive sequential Monte Carlo
    approach" (2016), https://arxiv.org/abs/1303.3123
    """
    steps = max(100, min(1000, num_temperatures // 4))
    betas = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    tau, spread = prior.base_sample(num_chains), []
    for step in range(steps):
        tau, log_w = prior.anneal(tau, betas[step : step + 2])  # [M]
        spread.append(log_w.std())
    length = torch.stack(spread).cpu()
    if not length.isfinite().all():
        raise UsageError("the adaptive schedule met log-weights that are not finite; the prior's weights overflowed")
    # A tenth of the path stays even: where the pilot saw no spread at all, steps must still be finite.
    length = 0.9 * length / length.sum().clamp(min=1e-300) + 0.1 / steps
    done = torch.cat([length.new_zeros(1), length.cumsum(0)])
    return _interpolate(done / done[-1], betas, num_temperatures)


def _corners(total: int) -> tuple[Tensor, Tensor]:
    """Fractions of the steps, and the temperatures reached by them, of the piecewise schedule."""
    ends = torch.tensor([0, *(count for count, _ in SEGMENTS)], dtype=torch.float64).cumsum(0)
    share = ends / ends[-1]
    if total >= 100:  # corners fall on temperatures; on fewer the path has no use for that
        share = (share * total).round() / total
    return share, torch.tensor([0.0, *(beta for _, beta in SEGMENTS)], dtype=torch.float64)


def _interpolate(share: Tensor, betas: Tensor, total: int) -> Schedule:
    """Temperatures along straight lines between (share of the steps, temperature) [C]."""

    def at(index: Tensor) -> Tensor:
        position = index.double() / total
        right = torch.searchsorted(share, position).clamp(1, len(share) - 1)
        low, high = share[right - 1], share[right]
        return torch.lerp(betas[right - 1], betas[right], ((position - low) / (high - low)).clamp(0, 1))

    return Schedule(total, at)
