"""What a run ran in: enough to find the same code, machine and data again."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from unibound import ranks
from unibound.data.files import File
from unibound.energies.energy import EnergyPrior
from unibound.errors import DamagedError
from unibound.joint import JointBound
from unibound.kernels.choice import backend
from unibound.registry import registries
from unibound.runs.build import Loaded
from unibound.runs.files import read_json
from unibound.settings.records import Choice, Given, Settings

ENVIRONMENT, KNOWN = "env.json", "data.json"
CURE = "remove it to go on without"


@attrs.frozen(eq=False)
class Known:
    """What a run's folder keeps of its data, so that a trained model can be looked at without them.

    Args:
        mean: of the training data [*X], from which models take their shape and some of their first weights.
        prepared: what was done to the data, in words.
        levels: how many grey levels they came in, where they came as whole numbers.
        missing: which part of their elements is missing, of all splits together.
    """

    mean: Tensor
    prepared: str
    levels: int | None = None
    missing: float = 0.0

    @classmethod
    def of(cls, loaded: Loaded) -> "Known":
        """What is kept of data."""
        return cls(loaded.splits.rows("train").mean(), loaded.prepared, loaded.levels, loaded.missing)

    @property
    def said(self) -> str:
        """What a person is told of them, in words; empty where they are as they came, and whole."""
        gone = f"{self.missing:.2%} of all elements are missing, and an NLL is of those observed"
        return "; ".join(text for text in (self.prepared, gone * (self.missing > 0)) if text)

    @property
    def document(self) -> dict[str, Any]:
        """As plain values."""
        return {"mean": self.mean.tolist(), "prepared": self.prepared, "levels": self.levels, "missing": self.missing}

    @classmethod
    def read(cls, folder: Path) -> "Known | None":
        """That of a run's folder; None where it cannot be read, and the data have to be."""
        try:
            found = read_json(folder / KNOWN, CURE) or {}
            mean = torch.tensor(found["mean"], dtype=torch.float64)
            levels, whole = found.get("levels"), bool(mean.dim() and mean.isfinite().all())
            missing = float(found.get("missing", 0.0))
            return cls(mean, str(found["prepared"]), levels and int(levels), missing) if whole else None
        except (DamagedError, ValueError, TypeError, KeyError):
            return None


def data_digest(folder: Path) -> str | None:
    """Digest of the data that the run of a folder began with; None where it is not known."""
    try:
        found = read(folder).get("data_sha256")
    except DamagedError:
        return None
    return found if isinstance(found, str) else None


def environment(settings: Settings) -> dict[str, Any]:
    """Command, versions, the plugins used, and machine; the commit too, where unibound runs from a checkout."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "unibound": version("unibound"),
        "commit": commit(),
        "plugins": plugins(settings),
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
        "ranks": str(ranks.size()) if ranks.size() > 1 else None,
    }


def plugins(settings: Settings) -> list[str]:
    """The plugins that a run uses: kind, name, and the distribution each comes from with its version."""
    chosen = [
        value
        for record in (settings, *settings.stages)
        for field in attrs.fields(type(record))
        if isinstance(value := getattr(record, field.name), Choice) and value.cls not in (File, Given)
    ]
    return sorted({f"{one.kind} {one.name} from {_origin(one)}" for one in chosen})


def _origin(choice: Choice) -> str:
    known = registries()[choice.kind]
    if choice.name not in known:
        return choice.cls.__module__
    owner = known.owner(choice.name)
    try:
        return f"{owner} {version(owner)}"
    except PackageNotFoundError:
        return owner


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
