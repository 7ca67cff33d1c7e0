"""What a run ran in: enough to find the same code, machine and data again."""

import platform
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unibound.energy import EnergyPrior
from unibound.errors import DamagedError
from unibound.joint import JointBound
from unibound.kernels.choice import backend
from unibound.runs.files import read_json

ENVIRONMENT = "env.json"
CURE = "remove it to go on without"


def environment() -> dict[str, Any]:
    """Command, versions, plugins and machine; the commit too, where unibound runs from a checkout."""
    points = entry_points(group="unibound")
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "unibound": version("unibound"),
        "commit": commit(),
        "plugins": sorted({f"{point.dist.name} {point.dist.version}" for point in points if point.dist}),
    }


def read(folder: Path) -> dict[str, Any]:
    """What the run in a folder ran in; nothing where that was not kept. Raises DamagedError."""
    path = folder / ENVIRONMENT
    found = read_json(path, CURE) or {}
    command = found.get("command", [""])
    if not (isinstance(command, list) and command and all(isinstance(word, str) for word in command)):
        raise DamagedError(f"{path} is damaged: command is no list of words; {CURE}")
    return found


def numerics(joint: JointBound, like: Tensor) -> dict[str, str | None]:
    """What decides how numbers are rounded, beside the settings: where any of it differs, so may the last bits.

    Args:
        joint: where it has no energy, no kernel that has a compiled twin is asked.
        like: a tensor as the run computes with.
    """
    energy = any(isinstance(module, EnergyPrior) for module in joint.modules())
    twin = backend("rbm_gibbs", like).__name__.rpartition(".")[2] if energy else None
    return {
        "unibound": version("unibound"),
        "torch": torch.__version__,
        "kernels": twin,
        "numba": version("numba") if twin == "compiled" else None,
        "processor": processor(),
    }


def commit() -> str | None:
    """The commit of the checkout that holds this file, with `+` if it was changed since; None if there is none."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        found = [
            subprocess.run(["git", *command], cwd=root, capture_output=True, text=True, check=True, timeout=10).stdout
            for command in (["rev-parse", "--short=10", "HEAD"], ["status", "--porcelain", "--", "unibound", "plugins"])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return found[0].strip() + ("+" if found[1].strip() else "")


def processor() -> str:
    """The GPU's name if there is one, or else the CPU's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
