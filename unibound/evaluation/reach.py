"""How far the K-particle bound may lie below log p: looked for where q does not look, and tried out on dreams.

What the draws of q show cannot tell what they never met. So the bound is held against others, of the same data, that
begin elsewhere; and the best of these is tried on data the model dreamed, whose exact latents are known, where it
brackets log p from both sides.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

import attrs
import torch
from torch import Tensor

from unibound.claim import NORMAL_95
from unibound.data.rows import Data, spread
from unibound.draws import Drawn
from unibound.energies.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.joint import JointBound
from unibound.partition import annealing, schedules
from unibound.partition.posterior import Path, moves
from unibound.partition.starts import Blend, Start, starts
from unibound.weights import log_mean_exp

Posterior = Literal["none", "draws", "ais"]

MAX_LACK = 0.5
"""Nats that the best bound may still lack, where two ends are claimed for a likelihood."""
TIGHT = 0.1
"""Nats that it may lack on dreams before more temperatures are tried."""

FEW = 50
"""Data that tell what to begin at."""
LEAST, MOST = 100, 2000
"""Draws per datum of such a look, whatever the number of particles."""


@attrs.frozen
class Plan:
    """How far to look.

    Args:
        cases: data that are looked at, spread over all.
        dreams: data of the model's own.
        num_chains: chains per datum and start; as many draws as there are particles where that is None.
        temperatures: numbers of them, to be tried in turn until the bound is tight on dreams.
    """

    cases: int
    dreams: int
    num_chains: int | None
    temperatures: tuple[int, ...]


PLANS = {"draws": Plan(200, 100, None, (1,)), "ais": Plan(100, 50, 16, (100, 400, 1600))}


@attrs.frozen
class Reach:
    """What was found where q does not look, in nats per datum.

    Args:
        by: what reached furthest, in words; it is what was tried on dreams.
        found: by each way, the mean over the data looked at of its bound of log p*; that of q's particles first.
        lack: how far the best lies above that of q's particles, at least 0, with its standard error over the data.
        gap: how much the best gained when its draws, or chains, were doubled.
        slack: mean over dreams of the upper less the lower bound that the best way gives, with its standard error.
        cases: how many data were looked at, and dreams.
        heuristic: whether dreams come from chains, so that they are the model's only if these reached it.
    """

    by: str
    found: dict[str, float] = attrs.field(eq=False)
    lack: float
    lack_stderr: float
    gap: float
    slack: float
    slack_stderr: float
    cases: tuple[int, int]
    heuristic: bool = False

    @property
    def open(self) -> str | None:
        """Why the far end of a likelihood cannot be claimed, in words; None where it can."""
        if min(self.cases) < 2:
            return "one datum does not tell how far such bounds scatter; look at more"
        looked = (self.lack, self.lack_stderr, self.gap, self.slack, self.slack_stderr)
        if not all(math.isfinite(one) for one in looked):
            return "bounds of it from elsewhere are not finite"
        if 2 * self.gap > MAX_LACK:
            return f"the bound by {self.by} still rises by {self.gap:.2f} nats as particles double; use more"
        if (most := self.slack + NORMAL_95 * self.slack_stderr) > MAX_LACK:
            return (
                f"on data of the model's own, where log p is known from both sides, the bound by {self.by} lacks up to "
                f"{most:.2f} nats"
            )
        return None

    @property
    def far(self) -> float:
        """How far log p may lie above the K-particle bound, on average, before noise."""
        return self.lack + max(2 * self.gap, self.slack, 0.0)

    @property
    def noise(self) -> float:
        """Half-width of its 95% interval."""
        return NORMAL_95 * math.hypot(self.lack_stderr, self.slack_stderr)

    @property
    def given(self) -> tuple[str, ...]:
        """What the far end takes for granted."""
        said = f"that {self.by} reach the posteriors of these data as they do those of the model's own"
        more = ("that the chains of the prior reached the model", said)
        return more if self.heuristic else (said,)


def require_known(posterior: str) -> Posterior:
    """Raise UsageError for a way to look at the posterior that there is not."""
    if posterior not in get_args(Posterior):
        raise UsageError(f"unknown posterior {posterior!r}; there are: {', '.join(get_args(Posterior))}")
    return posterior  # pyright: ignore[reportReturnType]


@torch.no_grad()
def reach(
    joint: JointBound, x: Data, bounds: Tensor, num_particles: int, at_once: int, posterior: Posterior
) -> Reach | str:
    """Look for what the particles of q may have missed.

    Args:
        joint: q and p, in evaluation mode.
        x: data [N, *X].
        bounds: what K particles of q gave of log p*(x), unnormalized [N], float64.
        num_particles: K.
        at_once: particles held at once.
        posterior: `draws` of q, a flattened q, the prior and even values, weighed by the mixture of them; `ais`, from
            each of these in turn; or `none`.
    Returns:
        What was found, or why nothing could be.
    """
    if posterior == "none":
        return "nothing was looked at beyond q's own draws"
    if isinstance(made := joint.q(x[:1]), Drawn) and made.partial:
        return "a draw of q stands for one term of tau, of which only means mean anything"
    plan = PLANS[posterior]
    index = spread(torch.arange(len(x), device=x.device), plan.cases)
    try:
        own, tau, heuristic = dream(joint, plan.dreams)
    except UsageError as error:
        return f"the model gives no data of its own to try the bound on ({error})"
    like = x[torch.arange(len(own), device=x.device) % len(x)]  # of dreams is missing what is of data
    dreams = own.masked_fill(like.isnan(), math.nan), tau, heuristic
    few = x[index[:FEW]]
    names = frozenset(start.name for start in starts(joint.p, few, joint.q(few)))
    look = _Look(joint, x[index], bounds[index], plan, names, min(max(num_particles, LEAST), MOST), at_once)
    first, *more = plan.temperatures
    found = look.at(first, *dreams)
    for temperatures in more:
        most = found.slack + NORMAL_95 * found.slack_stderr
        if most <= TIGHT or not math.isfinite(most + found.lack):  # more temperatures would change nothing
            break
        found = look.at(temperatures, *dreams)
    return found


@torch.no_grad()
def dream(joint: JointBound, count: int) -> tuple[Tensor, Tensor, bool]:
    """Data of the model's own with the latents they were made of, and whether these come from chains.

    The latents are exact draws of the posteriors of such data: of p, or of an energy small enough to be listed.
    """
    prior = joint.p.unnormalized
    if prior is None:
        return *joint.p.dream(count), False
    if isinstance(prior, EnergyPrior):
        state, heuristic = annealing.start_states(prior, count, prior.mixing_steps)
        if not heuristic:
            tau = joint.p.complete(state)
            return joint.p.conditional(tau).sample(), tau, False
    return *joint.p.dream(count), True


@attrs.frozen(eq=False)
class _Look:
    """The data looked at, and how."""

    joint: JointBound
    x: Tensor  # [N, *X]
    bounds: Tensor  # [N]
    plan: Plan
    names: frozenset[str]  # of what to begin at
    num_particles: int
    at_once: int

    def at(self, temperatures: int, x: Tensor, tau: Tensor, heuristic: bool) -> Reach:
        """What is found with so many temperatures; x and tau are dreams."""
        log_w = _grouped(lambda part: self._rise(temperatures, self.x[part]), len(self.x), self.size)
        found = {name: log_mean_exp(one) for name, one in log_w.items()}  # each [N]
        best = max(found, key=lambda name: found[name].mean().item())
        gains = found[best] - self.bounds
        halves = [log_mean_exp(log_w[best][part::2]) for part in (0, 1)] if self.chains > 1 else []
        gap = (found[best] - torch.stack(halves).mean(0)).mean().item() if halves else math.inf

        def bracket(part: slice) -> dict[str, Tensor]:
            path = self._paths(temperatures, x[part])[best]
            low, high = path.both(tau[part], self.chains, self._betas(temperatures))
            return {"slack": (high - low).unsqueeze(0)}

        slack = _grouped(bracket, len(x), self.size)["slack"].squeeze(0)
        own = {"q's particles": self.bounds.mean().item()}
        lack, lack_stderr = _mean(gains)
        mean, stderr = _mean(slack)
        return Reach(
            by=_words(best, temperatures),
            found=own | {_words(name, temperatures): one.mean().item() for name, one in found.items()},
            lack=max(lack, 0.0),
            lack_stderr=lack_stderr,
            gap=gap,
            slack=mean,
            slack_stderr=stderr,
            cases=(len(self.x), len(x)),
            heuristic=heuristic,
        )

    @property
    def chains(self) -> int:
        """Chains, or draws, per datum and start."""
        return self.plan.num_chains or self.num_particles

    @property
    def size(self) -> int:
        """Data whose chains are held at once."""
        return max(1, self.at_once // self.chains)

    def _rise(self, temperatures: int, x: Tensor) -> dict[str, Tensor]:
        paths = self._paths(temperatures, x)
        return {name: path.rise(self.chains, self._betas(temperatures)) for name, path in paths.items()}

    def _paths(self, temperatures: int, x: Tensor) -> dict[str, Path]:
        posterior = self.joint.q(x)
        found = starts(self.joint.p, x, posterior, self.names)
        if temperatures == 1:
            blend = Blend(_shares(found, self.chains))
            return {blend.name: Path(self.joint.p, x, blend, (), self.at_once)}
        over = self.joint.p.support
        return {one.name: Path(self.joint.p, x, one, moves(posterior, one, over), self.at_once) for one in found}

    def _betas(self, temperatures: int) -> Tensor:
        path = schedules.make("sigmoid", temperatures)
        return path.at(torch.arange(temperatures + 1))


def _shares(found: list[Start], count: int) -> tuple[tuple[Start, int], ...]:
    """Half of the draws for q, the rest for the others alike."""
    others = found[1:]
    each = [(count // 2 + index) // len(others) for index in range(len(others))] if others else []
    return tuple((one, share) for one, share in zip(found, [count - sum(each), *each], strict=True) if share)


def _grouped(look: Callable[[slice], dict[str, Tensor]], count: int, size: int) -> dict[str, Tensor]:
    """What a look at each group of data gave [M, B], for all of them [M, N]."""
    parts = [look(slice(first, first + size)) for first in range(0, count, size)]
    return {name: torch.cat([part[name] for part in parts], 1) for name in parts[0]}


def _mean(values: Tensor) -> tuple[float, float]:
    return values.mean().item(), values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.inf


def _words(name: str, temperatures: int) -> str:
    if temperatures == 1:
        return f"draws of {name}"
    return f"chains annealed from {name}"
