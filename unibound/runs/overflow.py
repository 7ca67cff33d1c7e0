"""Numbers that have run away: what must be neither kept nor trained on with, and whose it is."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from unibound.joint import JointBound

RUNAWAY = 1e8
"""A weight of this size is no weight any more, beside those that training began with."""

CURE = "lower its learning rate; the last good checkpoint, if any, is kept"


def trouble(
    joint: JointBound, optimizers: Mapping[str, torch.optim.Optimizer], never_finite: set[str], most: float
) -> str | None:
    """Why a joint must not be kept as it stands, in words; None where it may.

    An infinite moment freezes its weights for ever. Weights, or a momentum, that are finite and have run away overflow
    in the next epoch, and would do so in each resume of a checkpoint that held them.

    Args:
        joint: with its weights and chains.
        optimizers: by the groups that each steps.
        never_finite: buffers that were not finite to begin with, as a mask may be.
        most: size of the largest weight that may be.
    """
    for group, module in joint.parts().items():
        if (size := largest(*module.parameters())) > most:
            how = f"up to {size:.1g}" if math.isfinite(size) else "that are not finite"
            return f"{group} has weights {how}"
    for groups, optimizer in optimizers.items():
        for parameter, moments in optimizer.state.items():
            for name, value in moments.items():
                if torch.is_tensor(value) and not value.isfinite().all():
                    group = _group_of(joint, parameter)
                    return (
                        f"{name} in the optimizer of {group} is not finite, for a gradient overflowed, and {group} "
                        "would hardly move again"
                    )
        if (far := _drift(optimizer)) > most:
            return f"the momentum in the optimizer of {groups} would carry weights as far as {far:.1g}"
    if wrong := not_finite(joint) - never_finite:
        return f"{min(wrong)} is not finite"
    return None


def _group_of(joint: JointBound, parameter: Tensor) -> str:
    parts = joint.parts().items()
    return next(group for group, module in parts if any(one is parameter for one in module.parameters()))


def culprit(joint: JointBound) -> str:
    """The groups whose weights, or else whose gradients, are not finite."""
    for kind, of in (("weights", lambda p: p), ("gradients", lambda p: p.grad)):
        groups = [
            group
            for group, module in joint.parts().items()
            if not all(of(p).isfinite().all() for p in module.parameters() if of(p) is not None)
        ]
        if groups:
            return f"{kind} of {', '.join(groups)}"
    return "the data: every weight and gradient is finite"


def not_finite(joint: JointBound) -> set[str]:
    """Names of buffers, such as the chains, in which not every number is finite."""
    return {name for name, buffer in joint.named_buffers() if not buffer.isfinite().all()}


def largest_weight(joint: JointBound) -> tuple[str, float]:
    """The parameter group that has the largest weight, and its size; infinite if one is not a number."""
    sizes = {group: largest(*module.parameters()) for group, module in joint.parts().items()}
    return max(sizes.items(), key=lambda item: item[1])


def largest(*weights: Tensor) -> float:
    """The largest size among weights; infinite if one is not a number."""
    return max((one.detach().abs().nan_to_num(math.inf).max().item() for one in weights if one.numel()), default=0.0)


def _drift(optimizer: torch.optim.Optimizer) -> float:
    """How far momentum alone would carry some weight in a step; moments that are divided by their size carry none."""
    return max(
        (
            group["lr"] * largest(buffer)
            for group in optimizer.param_groups
            for parameter in group["params"]
            if (buffer := optimizer.state.get(parameter, {}).get("momentum_buffer")) is not None
        ),
        default=0.0,
    )
