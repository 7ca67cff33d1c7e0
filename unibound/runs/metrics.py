"""metrics.jsonl: a line for each epoch, flushed before the checkpoint that counts it."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from unibound import disk
from unibound.errors import DamagedError
from unibound.runs import checkpoint
from unibound.runs.checkpoint import About
from unibound.runs.result import finite

METRICS = "metrics.jsonl"

Line = dict[str, Any]


class Metrics:
    """The metrics of a run that is being trained.

    Args:
        folder: of the run.
        lines: how many of the lines there are its checkpoint counts; those after it are of epochs to be done again.
    """

    def __init__(self, folder: Path, lines: int) -> None:
        self.path = folder / METRICS
        content = self.path.read_bytes() if self.path.exists() else b""
        kept = _first(content, lines)
        if kept != content:
            disk.write(self.path, kept)
        self.lines, self._digest = kept.count(b"\n"), hashlib.sha256(kept)

    def append(self, line: Line) -> None:
        """Write the line of an epoch."""
        content = json.dumps(finite(line), allow_nan=False).encode() + b"\n"
        disk.append(self.path, content)
        self._digest.update(content)
        self.lines += 1

    @property
    def digest(self) -> str:
        """SHA-256 of all lines."""
        return self._digest.hexdigest()


def check(folder: Path, about: About) -> None:
    """Raise DamagedError unless the metrics of a run begin with the lines that a checkpoint has seen."""
    path = folder / METRICS
    if not path.exists():  # whoever removed it goes on without
        return
    content = path.read_bytes()
    if hashlib.sha256(_first(content, about.lines)).hexdigest() != about.lines_sha256:
        raise DamagedError(
            f"{path} is damaged or was edited in its first {about.lines} lines; put it back, or remove it to go on "
            "without them"
        )


def read(folder: Path) -> list[Line]:
    """The lines of metrics: names and numbers. A run that goes on may be in the middle of its last one.

    Raises:
        DamagedError: a line that is none, or others than the newest checkpoint has seen.
    """
    for newest in checkpoint.finished(folder / checkpoint.CHECKPOINTS)[-1:]:
        if (newest / checkpoint.ABOUT).exists():
            check(folder, checkpoint.read_about(newest))
    path = folder / METRICS
    try:
        whole = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    except OSError as error:
        raise DamagedError(f"cannot read {path}: {error.strerror}") from error
    found: list[Line] = []
    for number, text in enumerate(whole, 1):
        try:
            line = json.loads(text, parse_constant=lambda _: None)
            found.append(_checked(line, found[-1]["done"] if found else 0))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise DamagedError(
                f"{path} is damaged in line {number} ({error!s:.80}); remove that line, or put the file back"
            ) from error
    return found


def normalized(lines: Iterable[Line]) -> Iterator[Line]:
    """The same lines with bounds on log p(x), by the log Z of the last look, where files hold those on log p*(x)."""
    log_z = 0.0
    for line in lines:
        log_z = log_z if (found := line.get("log_z")) is None else found
        yield line if line.get("bound") is None else line | {"bound": line["bound"] - log_z}


def _first(content: bytes, lines: int) -> bytes:
    return b"".join(line + b"\n" for line in content.split(b"\n")[:-1][:lines])


def _checked(line: Any, before: int) -> Line:
    if not isinstance(line, dict):
        raise ValueError("no JSON object")
    if type(line["done"]) is not int or line["done"] <= before:
        raise ValueError(f"epoch {line['done']} after epoch {before}")
    for name, value in line.items():
        if value is not None and (isinstance(value, bool) or not math.isfinite(value)):
            raise ValueError(f"{name} is no number")
    return line
