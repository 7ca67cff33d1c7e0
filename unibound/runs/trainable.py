"""Which stages can be trained; what cannot is refused before anything is."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unibound.energies import centering
from unibound.energies.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.estimator import Estimator
from unibound.joint import JointBound
from unibound.registry import did_you_mean
from unibound.settings.records import Chains, Stage


def check(stage: Stage, joint: JointBound, few: Tensor) -> None:
    """Refuse a stage that cannot be trained.

    Args:
        stage: its settings.
        joint: q and p; its energies move as often as in this stage from here on.
        few: some training data [N, *X].

    Raises:
        UsageError: says what does not fit.
    """
    parts = joint.parts()
    for name in (*stage.trains, *stage.optimizers):
        if name not in (*parts, "auxiliary"):
            raise UsageError(f"unknown parameter group {name!r}; {did_you_mean(name, parts)}")
    name, estimator = stage.estimator.name, stage.estimator.settings
    _set_steps(stage.chains, joint)
    estimator.check(joint, few)
    if joint.draws_terms(few):
        _rehearse(estimator, joint, few)
    if idle := ", ".join(group for group in stage.trains if group in estimator.untrained):
        raise UsageError(f"{name} does not train {idle}; leave {idle} out of trains, or use another estimator")
    one = sorted(estimator.together & parts.keys())
    optimizers = [stage.optimizers.get(group, stage.optimizer) for group in one]
    if stage.trains and set(one) - set(stage.trains):
        raise UsageError(f"{name} keeps weights of {' and '.join(one)} equal; name both in trains, or leave it out")
    if any(other != optimizers[0] for other in optimizers):
        raise UsageError(f"{name} keeps weights of {' and '.join(one)} equal; give them one optimizer")
    groups = [group for group in stage.trains or parts if group not in estimator.untrained]
    if not any(True for group in groups if group in parts for _ in parts[group].parameters()):
        raise UsageError(
            f"there is nothing to train: {', '.join(groups)} has no parameters; "
            f"{'train other groups' if stage.trains else 'use another model, prior or estimator'}"
        )
    for group in parts.keys() & set(groups):
        centering.check_steps(parts[group], stage.optimizers.get(group, stage.optimizer).algorithm)


def energies(joint: JointBound) -> list[EnergyPrior]:
    """What in p has persistent chains."""
    return [module for module in joint.p.modules() if isinstance(module, EnergyPrior)]


def _set_steps(chains: Chains, joint: JointBound) -> None:
    """Let energies move as often as in a stage, which estimators look at; how many chains there are is for later."""
    found = energies(joint)
    if chains != Chains() and not found:
        prior = type(joint.parts().get("prior", joint.p)).__name__.lower()
        raise UsageError(f"chains: {prior} has none; leave them out of the stage, or use a prior with an energy")
    for energy in found:
        energy.steps = chains.steps or energy.usual[1]


def _rehearse(estimator: Estimator, joint: JointBound, few: Tensor) -> None:
    """Call an estimator once: whether it only averages, as terms must be, shows in no other way."""
    own = joint.auxiliary
    with torch.no_grad(), torch.random.fork_rng(), joint.evaluating():
        try:
            joint.auxiliary = estimator.auxiliary(joint, few)
            if joint.auxiliary is not None:
                joint.auxiliary.to(few)
            estimator(joint, few)
        finally:
            joint.auxiliary = own


def untrained(joint: JointBound, stages: Sequence[Stage]) -> tuple[str, ...]:
    """Parameter groups that no stage trains, so that their weights stay as they were drawn."""
    parts = joint.parts()
    trained = {
        group for stage in stages for group in stage.trains or parts if group not in stage.estimator.settings.untrained
    }
    return tuple(
        group for group, part in parts.items() if group not in trained and any(True for _ in part.parameters())
    )
