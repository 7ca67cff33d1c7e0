"""log Z seen from several bases, so that what no datum has ever shown can still be met.

Forward chains err low from whatever base they begin at, so the largest of their lower ends counts. Reverse chains err
high only from draws of the model. A run that begins at the data proves nothing of a phase that the data are not in;
here draws come from the forward chains of all bases, by their weights.
"""

import math
from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor

from unibound.energies.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.partition import annealing, schedules
from unibound.partition.log_z import LEAST_FOR_A_BAR, TOLERANCE, LogZ, Sandwich
from unibound.partition.schedules import Schedule
from unibound.support import describe, values
from unibound.weights import effective_sample_size

BASES = ("data", "uniform", "own chains")
"""Bases: the rates of the data, every value alike, and those of long runs of the model, or of exact draws."""

LEAST_OWN = 100
"""Draws that the rates of the model itself are taken of, at least."""


@attrs.frozen
class Plan:
    """How log Z is looked for.

    Args:
        base: the base asked for, `data` or `uniform`.
        temperatures: number of even ones, the name of a schedule, or temperatures from 0 to 1.
        num_chains: chains M from that base, and M back to it; from the other bases, and from the data, half as many.
        num_steps: Gibbs steps before chains are taken for draws of the model.
        tolerance: nats by which what is claimed of log Z may be open.
    """

    base: str = "data"
    temperatures: int | str | Sequence[float] = "piecewise"
    num_chains: int = 100
    num_steps: int = 500
    tolerance: float = TOLERANCE

    def __attrs_post_init__(self) -> None:
        if self.base not in BASES[:2]:
            raise UsageError(f"unknown base {self.base!r}; there are: {', '.join(BASES[:2])}")
        if self.num_chains < 1:
            raise UsageError(f"annealing needs at least 1 chain, not {self.num_chains}")

    @property
    def few(self) -> int:
        """Half the chains."""
        return (self.num_chains + 1) // 2

    def schedule(self, prior: EnergyPrior) -> Schedule:
        """The temperatures; only an adaptive schedule looks at the prior, whose base distribution is fitted."""
        if isinstance(self.temperatures, str) and not self.temperatures.lstrip("+-").isdigit():
            return schedules.make(self.temperatures, prior=prior)
        if isinstance(self.temperatures, int | str):
            return schedules.make("linear", int(self.temperatures))
        return schedules.of(self.temperatures)


@attrs.frozen(eq=False)
class View:
    """What forward chains from one base say.

    Args:
        base: its name.
        fitted: what the base distribution is fitted to [N, *Z].
        path: temperatures.
        lower: log Z, from below.
        end: where the chains ended [M, *Z].
        log_mass: log of what each end stands for [M], nats: the masses sum to the estimate of Z.
    """

    base: str
    fitted: Tensor
    path: Schedule
    lower: LogZ
    end: Tensor
    log_mass: Tensor


@attrs.frozen(eq=False)
class Look:
    """log Z from both sides, and all that was seen on the way.

    Args:
        plan: how it was looked for.
        views: forward chains from every base, the one that proves most first.
        upper: log Z from above, by reverse chains to the base of the first view.
        from_data: the same by chains that began at the data; None where draws of the model are exact.
        draws: states taken for draws of the model [M, *Z].
        draws_ess: effective number of forward chains those draws come from; None where they are exact.
    """

    plan: Plan
    views: tuple[View, ...]
    upper: LogZ
    from_data: LogZ | None
    draws: Tensor
    draws_ess: float | None

    @property
    def best(self) -> View:
        """The view whose lower end counts."""
        return self.views[0]

    @property
    def both(self) -> Sandwich:
        """The two sides of the certificate."""
        return Sandwich(self.best.lower, self.upper, self.plan.tolerance)


@torch.no_grad()
def look(
    prior: EnergyPrior,
    tau: Tensor,
    plan: Plan,
    on_progress: Callable[[int], object] = lambda done: None,
) -> Look:
    """Anneal from every base, and back from draws of the model to the one that proves most.

    The base asked for counts unless another proves more than its error bar allows.

    Args:
        prior: what is annealed; its base distribution ends up fitted to what that of the best view was.
        tau: data, or their codes [N, *Z].
        plan: how.
        on_progress: called with the number of chain-steps done in each block.
    Raises:
        UsageError: a base that the model has not, or a weight that is not finite.
    """
    many = max(plan.num_chains, LEAST_OWN)
    exact = annealing.draws_exactly(prior)
    own = annealing.start_states(prior, many, plan.num_steps)[0]
    bases = {"data": tau, "uniform": _every_value(prior), "own chains": own}
    fitted = {name: states for name, states in bases.items() if states is not None}
    if plan.base not in fitted:
        raise UsageError(f"there is no base {plan.base} over {describe(prior.support)}; use data")
    names = sorted(fitted, key=lambda name: name != plan.base)
    best, *others = views = _best_first([_view(prior, name, fitted[name], plan, on_progress) for name in names])
    prior.fit_base(best.fitted)
    if exact:
        draws, draws_ess, from_data = annealing.start_states(prior, plan.num_chains, 0)[0], None, None
    else:
        draws, draws_ess = _resampled(prior, views, plan)
        begun = annealing.begun_at(prior, tau, plan.few, plan.num_steps)
        from_data = _from_above(prior, begun, best.path, on_progress)
    upper = _from_above(prior, draws, best.path, on_progress, draws_ess)
    return Look(plan, (best, *others), upper, from_data, draws, draws_ess)


def _from_above(
    prior: EnergyPrior,
    draws: Tensor,
    path: Schedule,
    on_progress: Callable[[int], object],
    draws_ess: float | None = None,
) -> LogZ:
    """Reverse chains from draws; where few forward chains carry these, so they do the proportions of their phases."""
    upper = annealing.upper_bound(
        prior, annealing.reverse(prior, draws, path, on_progress), heuristic=not annealing.draws_exactly(prior)
    )
    if draws_ess is None:
        return upper
    few = draws_ess < LEAST_FOR_A_BAR
    return attrs.evolve(upper, stderr=math.inf if few else upper.stderr * math.sqrt(1 + (len(draws) - 1) / draws_ess))


def _every_value(prior: EnergyPrior) -> Tensor | None:
    """States that hold every value alike [V, *Z]; None where the model is over no finite number of them."""
    listed = values(prior.support)
    if listed is None:
        return None
    return torch.stack([prior.chains.new_full(tuple(prior.state_shape), value) for value in listed])


def _view(prior: EnergyPrior, base: str, fitted: Tensor, plan: Plan, on_progress: Callable[[int], object]) -> View:
    count = plan.num_chains if base == plan.base else plan.few
    prior.fit_base(fitted)
    path = plan.schedule(prior)
    end, log_w = annealing.forward(prior, count, path, on_progress)
    log_mass = prior.base_log_z() + log_w - math.log(count)
    return View(base, fitted, path, annealing.lower_bound(prior, log_w), end, log_mass)


def _best_first(views: list[View]) -> list[View]:
    """The first view stays so, unless another's lower end is above all that the first's error bar allows."""
    best = views[0]
    for view in views[1:]:
        low, high = view.lower.interval.low, best.lower.interval.high
        if low is not None and (high is None or low > high):
            best = view
    return [best, *(view for view in views if view is not best)]


def _resampled(prior: EnergyPrior, views: Sequence[View], plan: Plan) -> tuple[Tensor, float]:
    """Ends of all views drawn by what they stand for, then moved [M, *Z]; and how many of them carry the draws."""
    log_mass, count = torch.cat([view.log_mass for view in views]), plan.num_chains
    share = log_mass.softmax(0).cumsum(0)
    # Evenly spaced through the shares, which is less noise than independent draws.
    places = (torch.arange(count, device=share.device) + torch.rand((), device=share.device).double()) / count
    chosen = torch.searchsorted(share, places).clamp(max=len(share) - 1)
    ends = torch.cat([view.end for view in views])
    return prior.move(ends[chosen], plan.num_steps), effective_sample_size(log_mass.unsqueeze(1)).item()
