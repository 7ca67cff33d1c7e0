"""Annealed importance sampling of any energy prior: forward, in reverse, and what the weights say of log Z.

The prior need only give a free energy and a transition at every temperature and an exact start at beta = 0
(see `EnergyPrior`). Temperatures are swept in blocks, and log-weights are summed in float64.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from unibound.claim import Side
from unibound.energies.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.partition import enumeration, population
from unibound.partition.log_z import LEAST_FOR_A_BAR, LogZ, NormalizedPrior, Sandwich
from unibound.partition.schedules import Schedule
from unibound.tails import pareto_tail_index
from unibound.weights import effective_sample_size, log_mean_exp

CHAINS_AT_ONCE = 2000
"""Chains held in memory by `log_p_ann`."""

MAX_BITS = 20
"""Priors with at most 2^20 states are listed where an exact start, or log Z, is wanted."""


def forward(
    prior: EnergyPrior,
    num_chains: int,
    schedule: Schedule,
    on_progress: Callable[[int], object] = lambda done: None,
    *,
    walkers: int = 1,
) -> tuple[Tensor, Tensor]:
    """Carry chains from exact draws of the base distribution to the model.

        E[exp(log_w)] = Z / Z_0  exactly, for any schedule and any number of chains

    Args:
        prior: what is annealed, its base distribution fitted.
        num_chains: independent chains M.
        schedule: temperatures.
        on_progress: called with the number of chain-steps done in each block.
        walkers: with more than one, each of the M is a population of so many; see `population`.
    Returns:
        States at beta = 1, [M, *Z] or all walkers of all populations, and log_w [M] nats, float64.
    Raises:
        UsageError: no chains, or a weight that is not finite.
    Source: Neal, "Annealed importance sampling" (2001), https://arxiv.org/abs/physics/9803008
    """
    if num_chains < 1:
        raise UsageError(f"annealing needs at least 1 chain, not {num_chains}")
    if walkers > 1:
        tau, log_w = population.anneal(prior, num_chains, walkers, schedule, on_progress)
        _require_finite(prior, log_w)
        return tau, log_w
    return _sweep(prior, prior.base_sample(num_chains), schedule, False, on_progress)


def reverse(
    prior: EnergyPrior, tau: Tensor, schedule: Schedule, on_progress: Callable[[int], object] = lambda done: None
) -> Tensor:
    """Carry states tau [M, *Z] from the model down to the base distribution: log_w [M] nats, float64.

        E[exp(log_w)] = Z_0 / Z       for tau ~ p exactly
        E[f(tau) exp(log_w)] / Z_0 = p_ann(tau)    for a fixed tau, f = exp(-F)

    where p_ann is the distribution in which the forward chains end.

    Raises:
        UsageError: no states, or a weight that is not finite.
    Source: Grosse, Ghahramani and Adams (2015), https://arxiv.org/abs/1511.02543; Burda, Grosse and
    Salakhutdinov (2015), https://arxiv.org/abs/1412.8566
    """
    if len(tau) < 1:
        raise UsageError("annealing in reverse needs at least 1 state to start from")
    return _sweep(prior, tau, schedule, True, on_progress)[1]


@torch.no_grad()
def path_log_weight(prior: EnergyPrior, path: Tensor, betas: Tensor) -> Tensor:
    """The forward log-weight of given paths: states [T + 1, ..., *Z] at betas [T + 1] to [...] nats, float64.

        log w = sum_k log f_k(v_{k-1}) - log f_{k-1}(v_{k-1}),   k = 1..T

    The last state does not matter. What RAISE says of that last state is log f_T(v_T) - log Z_0 - log w.
    """
    log_w = torch.zeros((), dtype=torch.float64, device=path.device)
    for tau, (a, b) in zip(path, pairwise(betas.tolist()), strict=False):
        log_w = log_w + prior.free_energy(tau, a).double() - prior.free_energy(tau, b).double()
    return log_w


def log_p_ann(prior: EnergyPrior, tau: Tensor, schedule: Schedule, num_chains: int = 1) -> Tensor:
    """log r(tau) = log p_hat(tau) - log p*(tau), by reverse chains from each tau: [N, *Z] to [N] nats, float64.

    E[p_hat(tau)] = p_ann(tau) for every tau, so E[log p_hat] <= log p_ann: a stochastic lower bound of the
    annealing model, a normalized model in its own right. It is not a bound on log p(tau).

    Source: Burda, Grosse and Salakhutdinov, "Accurate and conservative estimates of MRF log-likelihood using
    reverse annealing" (2015), https://arxiv.org/abs/1412.8566
    """
    rows = max(1, CHAINS_AT_ONCE // num_chains)
    log_r = []
    for part in tau.split(rows):
        starts = part.unsqueeze(0).expand(num_chains, *part.shape).flatten(0, 1)  # [M * N, *Z]
        log_r.append(log_mean_exp(reverse(prior, starts, schedule).view(num_chains, -1)))
    return torch.cat(log_r) - prior.base_log_z()


class RaisedPrior(NormalizedPrior):
    """p_ann(tau), the distribution in which annealed chains end, estimated from below by reverse chains.

    Args:
        prior: what is annealed, its base distribution fitted.
        path: temperatures.
        num_chains: reverse chains per latent.
        num_draws: latents per datum that an evaluation anneals.
    """

    side = Side.LOWER
    of = "log p_ann"
    log_z = None

    def __init__(self, prior: EnergyPrior, path: Schedule, num_chains: int, num_draws: int) -> None:
        super().__init__(prior)
        self.energy_prior, self.path, self.num_chains, self.num_draws = prior, path, num_chains, num_draws

    def log_correction(self, tau: Tensor) -> Tensor:
        lead = tau.shape[: tau.dim() - len(self.prior.state_shape)]
        flat = tau.reshape(-1, *self.prior.state_shape)
        return log_p_ann(self.energy_prior, flat, self.path, self.num_chains).view(lead)


def lower_bound(prior: EnergyPrior, log_w: Tensor) -> LogZ:
    """What forward log-weights [M] say of log Z: E[value] <= log Z."""
    return _log_z(prior, log_w, Side.LOWER, heuristic=False)


def upper_bound(prior: EnergyPrior, log_w: Tensor, *, heuristic: bool) -> LogZ:
    """What reverse log-weights [M] say of log Z: E[value] >= log Z, for chains that began at exact draws."""
    return _log_z(prior, log_w, Side.UPPER, heuristic=heuristic)


def sandwich(
    prior: EnergyPrior,
    schedule: Schedule,
    num_chains: int,
    steps: int,
    tau: Tensor | None = None,
    on_progress: Callable[[int], object] = lambda done: None,
) -> tuple[Sandwich, Tensor]:
    """log Z from both sides, and where the forward chains ended.

    Args:
        prior: what is annealed, its base distribution fitted.
        schedule: temperatures.
        num_chains: chains M in each direction.
        steps: Gibbs steps before the reverse chains of a prior too large to be listed.
        tau: where those steps begin [N, *Z]; at the prior's persistent chains by default.
        on_progress: called with the number of chain-steps done in each block.
    """
    end, log_w = forward(prior, num_chains, schedule, on_progress)
    lower = lower_bound(prior, log_w)
    start, heuristic = start_states(prior, num_chains, steps, tau)
    upper = upper_bound(prior, reverse(prior, start, schedule, on_progress), heuristic=heuristic)
    return Sandwich(lower, upper), end


def start_states(prior: EnergyPrior, num_chains: int, steps: int, tau: Tensor | None = None) -> tuple[Tensor, bool]:
    """Draws from the model to begin reverse chains at.

    Exact where the prior is small enough to be listed; otherwise the end of a Gibbs run.

    Args:
        prior: the model.
        num_chains: draws M.
        steps: Gibbs steps of the run.
        tau: where the run begins [N, *Z], used in turn; at the prior's persistent chains by default.
    Returns:
        States [M, *Z], and whether they are heuristic.
    """
    if draws_exactly(prior):
        return enumeration.draw(prior, num_chains), False
    if tau is None:
        return prior.move(prior.persistent(num_chains), steps), True
    return begun_at(prior, tau, num_chains, steps), True


def draws_exactly(prior: EnergyPrior) -> bool:
    """Whether the prior is small enough to be listed, and so to be drawn from."""
    states = prior.enumeration()
    return states is not None and states.draw is not None and states.num_bits <= MAX_BITS


def begun_at(prior: EnergyPrior, tau: Tensor, num_chains: int, steps: int) -> Tensor:
    """Ends [M, *Z] of chains that begin all over tau [N, *Z]."""
    start = tau[torch.arange(num_chains, device=tau.device) * max(1, len(tau) // num_chains) % len(tau)]
    return prior.move(start.to(prior.chains), steps)


def _sweep(
    prior: EnergyPrior, tau: Tensor, schedule: Schedule, falling: bool, on_progress: Callable[[int], object]
) -> tuple[Tensor, Tensor]:
    log_w = torch.zeros(len(tau), dtype=torch.float64, device=tau.device)  # [M]
    for betas in schedule.blocks(falling=falling):
        tau, block = prior.anneal(tau, betas)
        log_w += block
        _require_finite(prior, log_w)
        on_progress(len(tau) * (len(betas) - 1))
    return tau, log_w


def _require_finite(prior: EnergyPrior, log_w: Tensor) -> None:
    if not log_w.isfinite().all():
        bad = int((~log_w.isfinite()).sum())
        raise UsageError(
            f"{bad} of {len(log_w)} annealing weights are not finite: the weights of {type(prior).__name__} "
            "overflowed or are not numbers; train it with a lower learning rate"
        )


def _log_z(prior: EnergyPrior, log_w: Tensor, side: Side, *, heuristic: bool) -> LogZ:
    count = len(log_w)
    sign = 1 if side is Side.LOWER else -1
    ess = effective_sample_size(log_w.unsqueeze(1)).item()
    # Delta method: the relative error of the mean weight is the absolute error of its log.
    relative_variance = max(count / ess - 1, 0.0) / (count - 1) if ess >= LEAST_FOR_A_BAR else math.inf
    tail = pareto_tail_index(log_w.unsqueeze(1)).item()
    return LogZ(
        value=prior.base_log_z() + sign * log_mean_exp(log_w).item(),
        stderr=math.sqrt(relative_variance),
        side=side,
        ess=ess,
        num_chains=count,
        tail=None if math.isnan(tail) else tail,
        heuristic=heuristic or not prior.moves_exactly,
    )
