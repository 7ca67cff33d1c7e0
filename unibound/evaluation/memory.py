"""How much memory particles take, and amounts of it as people write them."""

import re
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from unibound.errors import UsageError
from unibound.joint import JointBound

MAX_MEMORY = 2**30
"""Bytes of particles held at once, by default."""
CACHED = 2**25
"""Bytes of particles held at once on a CPU, whatever it has: past its caches they cost half as much again."""

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_bytes(text: str) -> int:
    """Read an amount of memory such as 500000000, 500MB or 2GB.

    Raises:
        UsageError: it is no such amount.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].lower() not in UNITS or float(match[1]) <= 0:
        raise UsageError(f"{text!r} is no amount of memory; write bytes, or 500MB, or 2GB")
    return int(float(match[1]) * UNITS[match[2].lower()])


@torch.no_grad()
def bytes_per_particle(joint: JointBound, x: Tensor) -> int:
    """Upper estimate of the bytes one particle of one datum x [1, *X] takes while it is drawn and weighed.

    Two particles are drawn, and the elements of what every module returns are counted, as if all were held at
    once; those of the latent and the datum are counted four times, for what is made of them between modules.
    """
    counted = 0

    def count(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal counted
        if isinstance(output, Tensor):
            counted += output.numel()

    with torch.random.fork_rng(), ExitStack() as hooks:
        for module in joint.p.modules():
            hooks.callback(module.register_forward_hook(count).remove)
        particles = joint.particles(x, 2, whole=False)
    elements = counted // 2 + 4 * (particles.tau[0, 0].numel() + x.numel()) + 16
    return elements * max(4, x.element_size())
