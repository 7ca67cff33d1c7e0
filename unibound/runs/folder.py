"""The folder of a run: its name, its one owner, and the settings it stands for."""

import os
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import attrs
from filelock import FileLock, Timeout

from unibound import disk
from unibound.errors import RunWarning, UsageError
from unibound.runs import checkpoint
from unibound.runs.checkpoint import CHECKPOINTS
from unibound.runs.files import read_sealed, read_sums, write_sealed
from unibound.runs.metrics import METRICS
from unibound.runs.pictures import FILM
from unibound.runs.result import EVALUATION
from unibound.settings import sources
from unibound.settings.convert import converter
from unibound.settings.records import Settings

RESOLVED, LOCK = "resolved.toml", ".lock"

ELSEWHERE = ("data.", "device", "threads", "warm_start")
"""Settings of the machine, which a run may be moved from; whether the data are the same is seen by their digest."""

Say = Callable[[str], object]
"""Is told, in one line, what is not as it should be but can be gone on with."""


def warn(text: str) -> None:
    """Say it as Python says such things."""
    warnings.warn(text, RunWarning, stacklevel=2)


def make(settings: Settings) -> Path:
    """Make a new folder under runs/, named after what is run, its seed and when; of many at once, each gets its own."""
    names = (
        settings.stages[-1].estimator.name,
        settings.prior.name,
        Path(settings.data.name).stem[:60].replace(":", "-"),
    )
    when = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = Path("runs") / "-".join([*names, f"seed{settings.seed}", when])
    for number in count(2):
        with suppress(FileExistsError):
            disk.make_folder(path)
            break
        path = path.with_name(f"{path.name.partition('+')[0]}+{number}")
    return path


def require_new(path: Path) -> None:
    """Raise UsageError for a folder that holds a run, or what is left of one."""
    if (path / RESOLVED).exists():
        raise UsageError(f"{path} holds a run already; go on with --resume {path}, or name another --run-dir")
    left = [name for name in (METRICS, EVALUATION) if (path / name).exists()]
    if checkpoint.finished(path / CHECKPOINTS):
        left.append(CHECKPOINTS)
    if left:
        raise UsageError(
            f"{path} holds {left[-1]} of another run; name another --run-dir, or remove {', '.join(left)} from it"
        )


def lock_of(path: Path) -> FileLock:
    """The lock of a folder, which whoever holds it may take again."""
    return FileLock(path.absolute() / LOCK, thread_local=False)


@contextmanager
def owned(path: Path, lock: FileLock) -> Iterator[None]:
    """Be the only one that writes to the folder of a run. Raises UsageError if another does, and names it."""
    outermost = not lock.is_locked
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with suppress(OSError):
            owner = (path / LOCK).read_text(errors="replace").strip()
            if owner:
                raise UsageError(f"{path} is being trained by {owner:.100}; wait for it, or end it") from None
        raise UsageError(f"{path} is being trained by another process; wait for it, or end it") from None
    except OSError as error:
        raise UsageError(f"cannot own {path}: {error.strerror}; name a folder that can be written to") from error
    try:
        if outermost:
            (path / LOCK).write_text(f"process {os.getpid()} on {platform.node()}\n")
            for folder in (path, path / CHECKPOINTS, path / FILM):
                disk.sweep(folder)
        yield
    finally:
        lock.release()


def read_settings(path: Path, say: Say = warn) -> Settings:
    """The settings of a run's folder; those its newest checkpoint holds are what the file is held against.

    Args:
        path: the folder.
        say: told where the file is hurt and the checkpoint's settings stand in, or where it was moved.

    Raises:
        UsageError: no folder of a run, or settings that are damaged or edited.
    """
    file = path / RESOLVED
    if (found := _seen(path)) is None:
        return _unseen(file)
    newest, about = found
    own = sources.resolve([sources.parse(about.settings, newest / checkpoint.ABOUT)])
    try:
        text = file.read_bytes().decode()
        if text == about.settings:
            return own
        settings = sources.resolve([sources.parse(text, file)]) if _is_whole(text) else None
    except (OSError, UnicodeDecodeError, UsageError):
        settings = None
    if settings is None:
        say(f"{file} is missing or damaged; the settings are those that {newest} holds")
        return own
    if not is_longer(own, settings) and (changed := differences(own, settings)):
        text = ", ".join(f"{name} was {was} and is {now}" for name, (was, now) in changed.items())
        if not all(name.startswith(ELSEWHERE) for name in changed):
            raise UsageError(
                f"{file} was edited, or {newest.name} is not a checkpoint of this run: {text:.300}; put it back, or "
                f"train anew with --config {file} --run-dir NEW"
            )
        say(f"{file} was edited: {text:.300}")
    return settings


def differences(one: Settings, other: Settings) -> dict[str, tuple[Any, Any]]:
    """The values of each setting in which two differ, by its dotted name."""
    first, second = (dict(_flat(converter.unstructure(settings))) for settings in (one, other))
    return {
        name: (first.get(name), second.get(name))
        for name in [*first, *(name for name in second if name not in first)]
        if first.get(name) != second.get(name)
    }


def is_longer(was: Settings, now: Settings) -> bool:
    """Whether a run differs from what it was by more epochs in its last stage alone."""
    *before, last = now.stages
    same = attrs.evolve(now, stages=(*before, attrs.evolve(last, epochs=was.stages[-1].epochs)))
    return last.epochs > was.stages[-1].epochs and not differences(was, same)


def lengthen(path: Path, epochs: int) -> None:
    """Give the last stage of a run more epochs, so that resuming goes on with it; what came out of fewer is dropped.

    Its learning rate follows the longer schedule from there on, so that it does not end as a run that was as long from
    the beginning would have.

    Args:
        path: folder of the run.
        epochs: of the last stage in all; as many as it has change nothing.

    Raises:
        UsageError: fewer than it has, or a stage that ended by its patience.
    """
    lock = lock_of(path)
    with owned(path, lock):
        settings = read_settings(path)
        *before, last = settings.stages
        if epochs < last.epochs:
            raise UsageError(f"--epochs {epochs}: the last stage of {path} has {last.epochs} already; name more")
        if epochs == last.epochs:
            return
        newest = checkpoint.finished(path / CHECKPOINTS)[-1:]
        if (path / EVALUATION).exists() and newest and int(newest[0].name) < settings.total_epochs:
            raise UsageError(f"--epochs {epochs}: the last stage of {path} ended by its patience, and would not go on")
        (path / EVALUATION).unlink(missing_ok=True)
        longer = attrs.evolve(settings, stages=(*before, attrs.evolve(last, epochs=epochs)))
        write_sealed(path / RESOLVED, sources.write(longer))


def _seen(path: Path) -> tuple[Path, checkpoint.About] | None:
    """The newest checkpoint that says what it is of, with what it says."""
    for found in reversed(checkpoint.finished(path / CHECKPOINTS)):
        with suppress(UsageError):
            if (found / checkpoint.ABOUT).exists():
                return found, checkpoint.read_about(found)
    return None


def _unseen(file: Path) -> Settings:
    """Settings that no checkpoint holds: of a run that was not trained yet, or one of version 0.1."""
    cure = "nothing is trained yet: remove the folder and begin anew"
    if (text := read_sealed(file, cure)) is None:
        raise UsageError(f"{file.parent} is not the folder of a run: it holds no {RESOLVED}")
    if file.name not in read_sums(file.parent) and not _is_whole(text):
        raise UsageError(f"{file} is empty or cut short, and does not say what was run; begin anew")
    return sources.resolve([sources.read(file)])


def _is_whole(text: str) -> bool:
    """Whether the text has what every version wrote of every run; an empty one would stand for all defaults."""
    keys = ("batch_size", "num_particles", "validate_every", "seed", "threads", "data", "model", "prior")
    try:
        found = sources.parse(text, Path(RESOLVED)).values
    except UsageError:
        return False
    return text.endswith("\n") and all(key in found for key in keys)


def _flat(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield from _flat(value, f"{name}.{key}" if name else key)
    elif isinstance(values, list) and any(isinstance(value, dict) for value in values):
        for index, value in enumerate(values, 1):
            yield from _flat(value, f"{name}.{index}")
    else:
        yield name, values
