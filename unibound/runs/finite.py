"""What must stay finite in training, and who is to blame where it does not."""

import math

from unibound.joint import JointBound

RUNAWAY = 1e8
"""A weight of this size is no weight any more."""

CURE = "lower its learning rate; the last good checkpoint, if any, is kept"


def largest_weight(joint: JointBound) -> tuple[str, float]:
    """The parameter group that has the largest weight, and its size; infinite if one is not a number."""
    sizes = {
        group: max((p.abs().nan_to_num(math.inf).max().item() for p in module.parameters() if p.numel()), default=0.0)
        for group, module in joint.parts().items()
    }
    return max(sizes.items(), key=lambda item: item[1])


def buffers_not_finite(joint: JointBound) -> set[str]:
    """Names of buffers, such as the chains, in which not every number is finite."""
    return {name for name, buffer in joint.named_buffers() if not buffer.isfinite().all()}
