"""Where a run stands that was interrupted: at its newest checkpoint that is whole, and of this very run."""

from pathlib import Path

from unibound.errors import DamagedError, UsageError
from unibound.runs import checkpoint, metrics
from unibound.runs.checkpoint import CHECKPOINTS, About
from unibound.runs.folder import ELSEWHERE, Say, differences, is_longer
from unibound.settings import sources
from unibound.settings.records import Settings


def standing(
    path: Path, settings: Settings, data_sha256: str, numerics: dict[str, str | None], say: Say
) -> tuple[Path, About] | None:
    """The checkpoint to go on from, and what it is of; None where there is none, so that the run begins anew.

    Args:
        path: folder of the run.
        settings: as they are to be gone on with.
        data_sha256: of the data.
        numerics: how numbers would be rounded from here on.
        say: told what was damaged, and why the run will not end as it would have.

    Raises:
        UsageError: no checkpoint is whole, or they are of another run, other data or version 0.1.
    """
    complaints: list[str] = []
    for found in reversed(checkpoint.finished(path / CHECKPOINTS)):
        try:
            if (about := checkpoint.check(found)) is not None:
                metrics.check(path, about)
        except DamagedError as error:
            complaints.append(str(error))
            continue
        if about is None:
            raise UsageError(
                f"{path} was begun by version 0.1, which drew other random numbers; `unibound evaluate {path}` opens "
                f"it, `unibound run --config {path / 'resolved.toml'}` trains it anew"
            )
        if checkpoint.is_exported(found):
            raise UsageError(f"{path} is an export, without what it takes to train on; resume the run it was made of")
        require_same(found, about, settings, data_sha256)
        if about.settings != sources.write(settings) and is_longer(_settings(found, about), settings):
            count = settings.stages[-1].epochs
            say(f"{path} goes on to {count} epochs of its last stage; its learning rate follows the longer schedule")
        if complaints:
            say(f"{complaints[0].partition('; ')[0]}; going on from {found.name}")
        if about.lines and not (path / metrics.METRICS).exists():
            say(f"{path / metrics.METRICS} is gone; its curves begin after {found.name}")
        if changed := {name: now for name, now in numerics.items() if now != about.numerics.get(name)}:
            was = ", ".join(f"{name} {about.numerics.get(name)}" for name in changed)
            now = ", ".join(f"{name} {value}" for name, value in changed.items())
            say(f"{path} was trained with {was}, and goes on with {now}: it will not end with the same bits")
        return found, about
    if complaints:
        raise UsageError(f"{path}: no checkpoint is whole, to go on from: {complaints[0]}")
    say(f"{path} holds no checkpoint; --resume begins anew")
    return None


def require_same(found: Path, about: About, settings: Settings, data_sha256: str) -> None:
    """Raise UsageError for a checkpoint of other settings or other data than those of the run."""
    if about.settings != sources.write(settings):
        known = _settings(found, about)
        for name, (was, now) in {} if is_longer(known, settings) else differences(known, settings).items():
            if not name.startswith(ELSEWHERE):
                raise UsageError(
                    f"{found} is not a checkpoint of this run: its {name} is {was}, not {now}; {checkpoint.CURE}"
                )
    if about.data_sha256 != data_sha256:
        path = found.parents[1]
        raise UsageError(f"the data are not those that {path} was trained on; bring them back, or start anew")


def _settings(found: Path, about: About) -> Settings:
    return sources.resolve([sources.parse(about.settings, found / checkpoint.ABOUT)])
