"""Models that q and p make together: how good they are, beside p."""

from collections.abc import Mapping
from typing import Any

import torch

from unibound.data.rows import Data
from unibound.energies.energy import EnergyPrior
from unibound.evaluation.conclusion import Evaluation
from unibound.evaluation.evaluate import evaluate_all
from unibound.joint import JointBound
from unibound.partition import LogZ, NormalizedPrior, ScaledPrior, annealing, enumeration, require_energy_prior

NUM_DRAWS = 10_000
"""Draws of the base distribution that log Z is estimated from, where states are too many to be listed."""
AT_ONCE = 1000


def evaluate_made(made: Mapping[str, JointBound], x: Data, **options: Any) -> dict[str, Evaluation]:
    """The NLL of data x [N, *X] under each model of `Estimator.makes`, by its name.

    What normalizes such a model is listed, or else estimated by importance sampling, which errs low. The bound of its
    log-likelihood errs low as well, so that their difference has no side. Nothing is looked at beyond q's own draws.

    Args:
        options: of `evaluate_all`.
    """
    found = {}
    for name, joint in made.items():
        with joint.evaluating():
            normalized = _normalized(joint)
        found[name] = evaluate_all(joint, x, [normalized], posterior="none", **options)[0]
    return found


@torch.no_grad()
def _normalized(joint: JointBound) -> NormalizedPrior | None:
    if joint.p.unnormalized is None:
        return None
    energy = require_energy_prior("evaluation", joint.p.unnormalized)
    states = energy.enumeration()
    if states is not None and states.num_bits <= annealing.MAX_BITS:
        return ScaledPrior(energy, LogZ(enumeration.log_sum(energy)))
    return ScaledPrior(energy, by_importance(energy))


@torch.no_grad()
def by_importance(energy: EnergyPrior, num_draws: int = NUM_DRAWS) -> LogZ:
    """log Z of an energy from draws of its base distribution, weighed at once: annealing without temperatures.

    E[exp(F_0 - F_1)] = Z / Z_0, so E[value] <= log Z
    """
    path = torch.tensor([0.0, 1.0], dtype=torch.float64)
    starts = energy.base_sample(num_draws).split(AT_ONCE)
    log_w = torch.cat([annealing.path_log_weight(energy, start.unsqueeze(0), path) for start in starts])
    return annealing.lower_bound(energy, log_w)
