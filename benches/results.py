"""One file of ratios for each machine, written by `pytest benches --save-results`."""

import json
import os
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import attrs

from unibound.runs.environment import processor

FOLDER = Path(__file__).parent / "results"
PACKAGES = ("unibound", "torch", "numba", "rbms", "scikit-learn")


@attrs.frozen
class Row:
    """One system.

    Args:
        ratio: the median over rounds of its time relative to the first row's.
        low, high: the quartiles around it.
        milliseconds: its median time.
        target: the ratio that it should not exceed, if there is one.
        met: whether it does not.
    """

    ratio: float
    low: float
    high: float
    milliseconds: float
    target: float | None
    met: bool | None

    @classmethod
    def of(cls, times: Sequence[float], reference: Sequence[float], target: float | None) -> "Row":
        low, ratio, high = statistics.quantiles((a / b for a, b in zip(times, reference, strict=True)), n=4)
        met = None if target is None else ratio <= target
        return cls(ratio, low, high, 1e3 * statistics.median(times), target, met)


@attrs.frozen
class Bench:
    """What one bench measured: rows by the name of the system, the reference first."""

    rounds: int
    rows: dict[str, Row]


def save(measured: Mapping[str, Bench]) -> Path:
    """Write the benches into this machine's file, beside those that were not run again; return its path."""
    path = FOLDER / f"{re.sub(r'[^a-z0-9]+', '-', processor().lower()).strip('-')}-{os.cpu_count()}c.json"
    before = json.loads(path.read_text()) if path.exists() else {"machine": {}, "benches": {}}
    now = machine()
    known = {name: value for name, value in now.items() if value is not None}  # what is gone raced in what is kept
    benches = {
        name: attrs.asdict(bench, filter=_is_known, value_serializer=_rounded) for name, bench in measured.items()
    }
    FOLDER.mkdir(exist_ok=True)
    content = {
        "machine": {**now, **before["machine"], **known},
        "benches": dict(sorted({**before["benches"], **benches}.items())),
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def machine() -> dict[str, object]:
    """Where and with what it was measured, and how busy the machine was at the end."""
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "threads": 1,
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _is_known(attribute: object, value: object) -> bool:
    return value is not None


def _rounded(instance: object, attribute: object, value: object) -> object:
    return float(f"{value:.3g}") if isinstance(value, float) else value
