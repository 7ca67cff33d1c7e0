"""Save and load the state of a run, so that being killed at any moment loses at most the epoch under way.

A checkpoint is a folder of its own: written beside, flushed to the disk, then renamed into place.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unibound.errors import UniboundError, UsageError

WEIGHTS, STATE = "weights.safetensors", "state.pt"


def save(folder: Path, number: int, weights: dict[str, Tensor], state: dict[str, Any], keep: int = 2) -> Path:
    """Write checkpoint `number`, then remove all but the newest `keep`.

    Args:
        folder: where the checkpoints of a run live.
        number: a count that grows during the run.
        weights: parameters and buffers by name.
        state: optimizer state, random state and position; plain values and tensors.
        keep: how many checkpoints stay.

    Raises:
        UniboundError: the disk is full, or the folder cannot be written; earlier checkpoints are untouched.
    """
    target, draft = folder / f"{number:06d}", folder / f".{number:06d}.draft"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, draft / WEIGHTS)
        torch.save(state, draft / STATE)
        for path in (draft / WEIGHTS, draft / STATE, draft):
            _flush(path)
        if target.exists():
            shutil.rmtree(target)
        draft.rename(target)
        _flush(folder)
    except (OSError, SafetensorError, RuntimeError) as error:  # each writer has its own word for a full disk
        raise UniboundError(
            f"cannot save {target} ({_reason(error)}); make room, and go on with --resume {folder.parent}"
        ) from error
    for old in finished(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def newest(folder: Path) -> Path:
    """The last checkpoint that was finished; UsageError if there is none."""
    if not (found := finished(folder)):
        raise UsageError(f"{folder} holds no checkpoint; train first, with `unibound run --resume {folder.parent}`")
    return found[-1]


def load_weights(checkpoint: Path, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """Read parameters and buffers by name; UsageError if the file is truncated or foreign."""
    try:
        return load_file(checkpoint / WEIGHTS, device=str(device))
    except (SafetensorError, OSError) as error:
        raise _damaged(checkpoint / WEIGHTS, error) from error


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Read what `save` was given as state; UsageError if the file is truncated or foreign."""
    try:
        return torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)
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
            f"{found} is not a checkpoint of this run ({type(error).__name__}: {reason:.200}); "
            "remove its folder to fall back on the one before"
        ) from error


def finished(folder: Path) -> list[Path]:
    """Every checkpoint that was finished, the newest last."""
    return sorted(path for path in folder.glob("[0-9]" * 6) if path.is_dir())


def _damaged(path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"{path} is damaged or no checkpoint ({_reason(error):.120}); remove its folder to fall back on the one before"
    )


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
