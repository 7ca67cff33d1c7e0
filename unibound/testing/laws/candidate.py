"""An estimator that sits the exam, and the worlds it sits it in."""

from collections.abc import Callable, Collection

import attrs
import torch
from torch import Tensor

from unibound.errors import UsageError
from unibound.estimator import Estimate, Estimator
from unibound.joint import JointBound
from unibound.testing.priors import Table
from unibound.testing.replay import Rehearsal, rehearse
from unibound.testing.verdict import TOLERANCE, demand, gap
from unibound.testing.worlds import World

# Seeds with a wide gap between L_K and log p(x), and with every gradient large, so that mistakes show.
WORLDS: dict[str, Callable[[], World]] = {
    "bits": lambda: World.of_bits(10),
    "bits with an energy": lambda: World.of_bits(6, Table((2,))),
    "layers with an energy on top": lambda: World.of_layers(4),
    "reals": lambda: World.of_reals(6),
    "layers with tied weights": lambda: World.of_tied_layers(4),
    "steps of a recurrence": lambda: World.of_steps(3),
    "layers of reals": lambda: World.of_real_layers(6, num_nodes=3),
}
LAST = {
    "reals": "quadrature",
    "layers with tied weights": "of no interest to others",
    "steps of a recurrence": "coarse quadrature",
    "layers of reals": "coarse quadrature",
}
"""Worlds for those alone that can work in none before them, and why."""
BETWEEN = "layers of reals"
"""But for this one: a bias may be of the terms between layers, and those that need reals see no other layers."""


@attrs.frozen(eq=False)
class Candidate:
    """An estimator with few particles, and the worlds it can work in, by name.

    Args:
        estimator: with two particles, where it has a field `num_particles`.
        worlds: where its `check` and a first run went well.
        surprises: what went wrong in worlds that its `check` had accepted.
    """

    estimator: Estimator
    worlds: dict[str, World]
    surprises: list[str]

    @classmethod
    def of(cls, plugin: Estimator | Callable[[], Estimator]) -> "Candidate":
        """Prepare an estimator, or what makes one when called."""
        given = plugin if isinstance(plugin, Estimator) else plugin()
        estimator = resized(given, 2) or given
        accepted, refusals, surprises = {}, [], []
        for name, make in WORLDS.items():
            if name in LAST and accepted and not (name == BETWEEN and _may_be_biased_between(estimator, accepted)):
                continue
            world = make()
            try:
                estimator.check(world.joint, world.xs)
            except UsageError as error:
                refusals.append(f"{name}: {error}")
                continue
            try:
                rehearse(world, estimator)
                accepted[name] = world
            except UsageError as error:
                surprises.append(f"{name}: {error}")
        demand(bool(accepted), f"works in no world; {'; '.join(refusals + surprises)}")
        return cls(estimator, accepted, surprises)

    def sizes(self) -> list[Estimator]:
        """The estimator with 1, 2 and 3 particles, as far as it allows; as it is, if it has no such setting."""
        return [one for k in (1, 2, 3) if (one := resized(self.estimator, k))] or [self.estimator]


def _may_be_biased_between(estimator: Estimator, accepted: Collection[str]) -> bool:
    return set(accepted) == {"reals"} and "generator" not in estimator.unbiased


def resized(estimator: Estimator, k: int) -> Estimator | None:
    """The same estimator with k particles; None where it has no such setting or refuses that many."""
    if not attrs.has(type(estimator)) or "num_particles" not in attrs.fields_dict(type(estimator)):
        return None
    try:
        return attrs.evolve(estimator, num_particles=k)
    except (ValueError, UsageError):
        return None


def trial(world: World, estimator: Estimator, x: Tensor) -> Estimate:
    """Run an estimator once, on draws of its own under a fixed seed."""
    joint = JointBound(world.joint.q, world.joint.p)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        joint.auxiliary = estimator.auxiliary(joint, x)
        if joint.auxiliary is not None:
            joint.auxiliary.to(x.dtype)
        return estimator(joint, x)


def claims_bound(rehearsal: Rehearsal) -> bool:
    """Whether the estimator says that its number is, or bounds, the log-likelihood."""
    return rehearsal.estimate.bound is not None and rehearsal.estimate.side != "none"


def bound_of(rehearsal: Rehearsal) -> Tensor:
    """The bound of every row [B], of an estimator known to claim one."""
    assert rehearsal.estimate.bound is not None
    return rehearsal.estimate.bound


def levels(world: World, num_particles: int) -> dict[str, Tensor]:
    """The two bounds that log-weights have: name to [N] nats, the value in log p*, the gradient in log p."""
    shift = world.log_z().detach()
    return {"L_K": world.bound(num_particles) + shift, "the ELBO": world.bound(1) + shift}


def objective(world: World, rehearsal: Rehearsal) -> tuple[str, Tensor] | None:
    """Which of the two the expected bound is, and its values [N]; None if it is neither."""
    if rehearsal.estimate.bound is None or rehearsal.estimate.log_weights is None:
        return None
    expected = rehearsal.mean(rehearsal.estimate.bound)
    for name, values in levels(world, len(rehearsal.estimate.log_weights)).items():
        if gap(expected, values.detach()) <= TOLERANCE:
            return name, values
    return None
