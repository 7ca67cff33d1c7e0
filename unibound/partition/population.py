"""Population annealing: walkers that carry little weight make room for copies of those that carry much.

Shapes: P independent populations of W walkers. Everything is in nats.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from unibound.energies.energy import EnergyPrior
from unibound.partition.schedules import Schedule
from unibound.weights import log_mean_exp

LOOKS = 100
"""How often, along a schedule, populations are asked whether few of their walkers carry them."""


@torch.no_grad()
def anneal(
    prior: EnergyPrior,
    num_populations: int,
    walkers: int,
    schedule: Schedule,
    on_progress: Callable[[int], object] = lambda done: None,
    *,
    threshold: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Carry populations from the base distribution to the model.

        E[exp(log_w)] = Z / Z_0  exactly, for any number of walkers

    Every so often walkers are drawn anew by their weights, before they move, in each population whose effective size
    has fallen; the mean weight so far is kept as a factor. Walkers of one population depend on each other from then on,
    and so it counts as one estimate: error bars come from independent populations.

    Args:
        prior: what is annealed, its base distribution fitted.
        num_populations: P.
        walkers: W.
        schedule: temperatures.
        on_progress: called with the number of chain-steps done in each block.
        threshold: share of W below which an effective size asks for new draws; from 1 on they are always made.
    Returns:
        States [P * W, *Z] at beta = 1, population by population, and log_w [P] nats, float64.

    Source: Hukushima and Iba, "Population annealing and its application to a spin glass" (2003),
    https://doi.org/10.1063/1.1632130; Del Moral, Doucet and Jasra, "Sequential Monte Carlo samplers" (2006),
    https://doi.org/10.1111/j.1467-9868.2006.00553.x
    """
    tau = prior.base_sample(num_populations * walkers)
    total = torch.zeros(num_populations, dtype=torch.float64, device=tau.device)
    log_w = torch.zeros(num_populations, walkers, dtype=torch.float64, device=tau.device)
    for betas in schedule.blocks(size=max(1, schedule.num_temperatures // LOOKS)):
        if len(betas) > 2:
            tau, step = prior.anneal(tau, betas[:-1])
            log_w += step.view_as(log_w)
        low, high = betas[-2:].tolist()
        log_w += (prior.free_energy(tau, low).double() - prior.free_energy(tau, high).double()).view_as(log_w)
        share = log_w.softmax(1)
        small = share.square().sum(1) ** -1 < threshold * walkers if threshold < 1 else torch.ones_like(total).bool()
        parents = torch.arange(walkers, device=tau.device).expand_as(log_w).clone()
        parents[small] = share[small].multinomial(walkers, replacement=True)
        total = torch.where(small, total + log_mean_exp(log_w.mT), total)
        log_w = torch.where(small.unsqueeze(1), torch.zeros_like(log_w), log_w)
        first = walkers * torch.arange(num_populations, device=tau.device).unsqueeze(1)
        tau = prior.move(tau[(first + parents).flatten()], 1, high)
        on_progress(len(tau) * (len(betas) - 1))
    return tau, total + log_mean_exp(log_w.mT)
