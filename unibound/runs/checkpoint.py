"""Save and load the state of a run, so that being stopped at any moment loses at most the epoch under way.

A checkpoint is a folder of its own: drafted beside, flushed to the disk, then renamed into place. It holds the weights,
what else it takes to go on, what it is a checkpoint of, and the digests of these three, by which damage is found.
"""

import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import safetensors.torch
import torch
from torch import Tensor

from unibound import disk
from unibound.errors import DamagedError, UniboundError, UsageError
from unibound.runs.files import SUMS, read_json, read_sums, write_sums
from unibound.runs.result import plain

WEIGHTS, STATE, ABOUT = "weights.safetensors", "state.pt", "about.json"
CHECKPOINTS = "checkpoints"
"""Where in the folder of a run they are."""
FORMAT = 2
CURE = "remove its folder to fall back on the one before"


@attrs.frozen
class About:
    """What a checkpoint is one of.

    Args:
        settings: the text of the run's resolved settings.
        data_sha256: of the data, as they are trained on.
        numerics: what decides how numbers are rounded: versions, kernels, processor.
        lines: how many lines of metrics there were, with the digest of them all.
        format: of the checkpoint.
        best: number of the best checkpoint so far, which is kept beside the newest; None where there is none.
    """

    settings: str
    data_sha256: str
    numerics: dict[str, str | None]
    lines: int
    lines_sha256: str
    format: int = FORMAT
    best: int | None = None


def save(
    folder: Path,
    number: int,
    weights: dict[str, Tensor],
    state: dict[str, Any],
    about: About | None = None,
    keep: int = 2,
) -> Path:
    """Write checkpoint `number`, then remove all but the newest `keep` and the best.

    Args:
        folder: where the checkpoints of a run live.
        number: a count that grows during the run.
        weights: parameters and buffers by name.
        state: optimizer state, random state and position; plain values and tensors.
        about: what it is a checkpoint of.
        keep: how many checkpoints stay.

    Raises:
        UniboundError: the disk is full, or the folder cannot be written; earlier checkpoints are untouched.
    """
    target, buffer = folder / f"{number:06d}", io.BytesIO()
    torch.save(state, buffer)
    files = {
        WEIGHTS: safetensors.torch.save({name: tensor.contiguous().clone() for name, tensor in weights.items()}),
        STATE: buffer.getvalue(),
        **({} if about is None else {ABOUT: json.dumps(attrs.asdict(about), indent=2).encode() + b"\n"}),
    }
    try:
        if not folder.is_dir():
            disk.make_folder(folder)
        draft = disk.draft_of(target)
        draft.mkdir()
        for name, content in files.items():
            disk.write(draft / name, content)
        write_sums(draft, {name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
        if target.exists():
            shutil.rmtree(target)
        draft.rename(target)
        disk.flush(folder)
        prune(folder, keep, None if about is None else about.best)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UniboundError(
            f"cannot save {target} ({reason}); make room, and go on with --resume {folder.parent}"
        ) from error
    return target


def prune(folder: Path, keep: int = 2, best: int | None = None) -> None:
    """Remove all but the newest `keep` checkpoints, and the best by its number. Raises OSError."""
    for old in finished(folder)[:-keep]:
        if int(old.name) == best:
            continue
        # Renamed first: half of a checkpoint is not to be taken for a damaged one.
        shutil.rmtree(old.rename(disk.draft_of(old)))


def check(found: Path) -> About | None:
    """Hold every file of a checkpoint against its digest.

    Returns:
        What it is a checkpoint of; None for one of version 0.1, which has no digests.

    Raises:
        DamagedError: a file is damaged or missing.
        UsageError: the format is that of a later version.
    """
    sums = read_sums(found)
    if not any((folder / name).exists() for folder, name in ((found, ABOUT), (found, SUMS), (found.parents[1], SUMS))):
        return None
    for name in (WEIGHTS, STATE, ABOUT):
        if name != STATE or not is_exported(found):
            _require_whole(found / name, sums.get(name, ""))
    return read_about(found)


def is_exported(found: Path) -> bool:
    """Whether a checkpoint was left without what it takes to train on; one that lost it still lists its digest."""
    return STATE not in read_sums(found) and not (found / STATE).exists() and (found / SUMS).exists()


def read_about(found: Path) -> About:
    """What a checkpoint is of.

    Raises:
        DamagedError: that is damaged.
        UsageError: the format is that of a later version.
    """
    path = found / ABOUT
    values = read_json(path, CURE)
    if values is None:
        raise DamagedError(f"{path} is missing; {CURE}")
    if isinstance(known := values.get("format"), int) and known > FORMAT:
        raise UsageError(f"{found} has format {known}, of a later version of unibound; pip install -U unibound")
    try:
        return plain.structure(values, About)
    except Exception as error:  # cattrs raises half a dozen kinds
        raise _damaged(path, error) from error


def newest(folder: Path) -> Path:
    """The last checkpoint that was finished; UsageError if there is none."""
    if not (found := finished(folder)):
        raise UsageError(f"{folder} holds no checkpoint; train first, with `unibound run --resume {folder.parent}`")
    return found[-1]


def load_weights(checkpoint: Path, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """Read parameters and buffers by name; DamagedError if the file is damaged or foreign."""
    content = _read(checkpoint / WEIGHTS)
    try:
        return {name: tensor.to(device) for name, tensor in sorted(safetensors.torch.load(content).items())}
    except Exception as error:  # a header that is none makes it raise several kinds
        raise _damaged(checkpoint / WEIGHTS, error) from error


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Read what `save` was given as state; DamagedError if the file is damaged or foreign. Nothing is unpickled."""
    content = _read(checkpoint / STATE)
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds on a file that is not its own
        raise _damaged(checkpoint / STATE, error) from error


@contextmanager
def fitting(found: Path) -> Iterator[None]:
    """Report a checkpoint of another model as such; torch and dictionaries raise many kinds."""
    try:
        yield
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{found} is not a checkpoint of this run ({type(error).__name__}: {reason:.200}); {CURE}"
        ) from error


def finished(folder: Path) -> list[Path]:
    """Every checkpoint that was finished, the newest last."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(
        (path for path in found if re.fullmatch(r"\d{6}|[1-9]\d{6,}", path.name) and path.is_dir()),
        key=lambda path: int(path.name),
    )


def _read(path: Path) -> bytes:
    if digest := read_sums(path.parent).get(path.name):
        _require_whole(path, digest)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _damaged(path, error) from error


def _require_whole(path: Path, digest: str) -> None:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _damaged(path, error) from error
    if found != digest:
        raise DamagedError(f"{path} is damaged or no checkpoint (its SHA-256 is not the one that was saved); {CURE}")


def _damaged(path: Path, error: Exception) -> DamagedError:
    reason = str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__
    return DamagedError(f"{path} is damaged or no checkpoint ({reason:.120}); {CURE}")
