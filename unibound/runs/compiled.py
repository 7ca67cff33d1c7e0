"""Estimators as torch.compile makes them: what one does in a training step is traced, and becomes few kernels."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from unibound import kernels
from unibound.errors import UsageError
from unibound.estimator import Estimate, Estimator
from unibound.joint import JointBound

Call = Callable[[JointBound, Tensor], Estimate]


def as_it_is(estimator: Estimator) -> Call:
    """What an estimator says, by itself."""
    return estimator


@cache
def compiled(estimator: Estimator) -> Call:
    """What an estimator says, computed by what torch.compile makes of it when it is first asked.

    Random numbers are others than without, and the same ones from the same seed. What cannot be traced is done as it
    always is. Checks of values, which the trainer has made once, are left out.

    Source: Ansel et al., "PyTorch 2: Faster machine learning through dynamic Python bytecode transformation and graph
    compilation" (2024), https://pytorch.org/assets/pytorch2-2.pdf
    """
    kernels.leave_untraced()
    return torch.compile(estimator.__call__)


@cache
def graphed(estimator: Estimator) -> Call:
    """`compiled`, with the kernels of each pass recorded as a CUDA graph, which is launched at once."""
    kernels.leave_untraced()
    call = torch.compile(estimator.__call__, mode="reduce-overhead")

    def step(joint: JointBound, x: Tensor) -> Estimate:
        torch.compiler.cudagraph_mark_step_begin()
        said = call(joint, x)
        # What is kept beyond the step is copied, since the next one writes to the same place.
        bound, log_w = (None if value is None else value.clone() for value in (said.bound, said.log_weights))
        return Estimate(said.surrogate, bound, log_w, said.side)

    return step


def compiled_on(device: torch.device) -> Callable[[Estimator], Call]:
    """How estimators are compiled for a device, tried once. Raises UsageError if torch.compile does not work for it."""
    try:
        torch.compile(torch.neg)(torch.ones(2, device=device))
    except Exception as error:  # of whatever is missing: each backend has its own
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"compile needs what torch.compile needs for {device.type}, as a C++ compiler: {reason}; install it, or "
            "leave compile out"
        ) from error
    return graphed if device.type == "cuda" else compiled
