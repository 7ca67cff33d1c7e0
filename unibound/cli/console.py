"""What a person, or a program, is shown of a run: a live progress bar, then one table or one JSON document."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from unibound.loggers import Log, Logger
from unibound.runs.folder import lengthen, read_settings
from unibound.runs.launch import together
from unibound.runs.progress import Progress
from unibound.runs.result import Result
from unibound.runs.run import Run
from unibound.runs.trainable import untrained
from unibound.settings import sources
from unibound.settings.records import Settings
from unibound.settings.sources import Layer

stderr = Console(stderr=True)


def begin(
    run_dir: Path | None,
    settings: Settings,
    devices: int,
    num_nodes: int,
    *,
    as_json: bool,
    loggers: Sequence[Logger],
) -> None:
    """Begin a run, in as many processes as are asked for, and train it."""
    with together(devices, num_nodes, settings.device) as place:
        train(Run.create(place(run_dir), settings), resume=False, as_json=as_json, loggers=loggers)


def resume(path: Path, flags: Layer, devices: int, num_nodes: int, *, as_json: bool, loggers: Sequence[Logger]) -> None:
    """Go on with a run, in as many processes as are asked for; those that it had are not asked.

    Of flags there may be the epochs of its last stage, if these are to be more.
    """
    if flags.values:
        (stage,) = sources.resolve([flags]).stages
        lengthen(path, stage.epochs)
    device = read_settings(path, say=lambda text: None).device
    with together(devices, num_nodes, device) as place:
        train(Run.open(place(path) or path, weights=False), resume=True, as_json=as_json, loggers=loggers)


def train(run: Run, *, resume: bool, as_json: bool, loggers: Sequence[Logger] = ()) -> None:
    """Train a run to the end, evaluate it, draw its pictures, and print what came out.

    A run that is finished already is only printed again. Loggers hear how it goes.
    """
    result = run.result() if resume else None
    if result is None:
        with run.owned():
            result = _finished(run, loggers, resume=resume)
    _print(result, as_json)
    if not result.log_z_trustworthy:
        stderr.print(f"unibound: {result.conclusion}", highlight=False, soft_wrap=True)


def _finished(run: Run, loggers: Sequence[Logger], *, resume: bool) -> Result:
    epochs = run.train(resume=resume)
    if run.known.said:
        _say(f"data: {run.known.said}", always=True)
    if run.settings.mixed_precision:
        _say("mixed precision: products in bfloat16, sums and log-probabilities in float32", always=True)
    if groups := ", ".join(untrained(run.joint, run.settings.stages)):
        _say(f"{groups}: no stage trains it, its weights stay as they are drawn; name a stage that does", always=True)
    try:
        with Log(run, loggers) as log:
            result = run.finish(_train(run, epochs, log), bar)
            log.conclude(result)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; go on with `unibound run --resume {shlex.quote(str(run.path))}`"
        ) from None
    return result


def _train(run: Run, epochs: Iterator[Progress], log: Log) -> float:
    """Train to the end, and say how far it is; the seconds it took."""
    stages, total, seconds = run.settings.stages, run.settings.total_epochs, 0.0
    _say(f"{total} epochs into {run.path}")
    with _bar() as shown:
        task = shown.add_task("training", total=total, text="")
        for progress in epochs:
            log.after(progress)
            text = "" if progress.bound is None else f"log p(x) >= {progress.bound:.2f} nats"
            if progress.valid_nll is not None:
                text += f"{', ' if text else ''}valid NLL {progress.valid_nll:.2f}"
            if progress.log_z is not None and not progress.log_z.trustworthy:
                text += " (log Z untrustworthy)"
            if progress.stuck is not None:
                _say(f"after epoch {progress.done} chains do not mix: {progress.stuck}", always=True)
            if progress.certain is not None:
                _say(f"after epoch {progress.done} q is saturated: {progress.certain}", always=True)
            name = stages[progress.epoch.stage].estimator.name
            shown.update(task, completed=progress.done, text=text, description=name)
            seconds = progress.seconds
            if run.settings.looks_after(progress.epoch.stage, progress.epoch.epoch, progress.done):
                left = seconds / progress.done * (total - progress.done)
                _say(f"{name}, epoch {progress.done} of {total}: {text}; {seconds:.0f} s, about {left:.0f} s left")
    return seconds


def _bar(*, passing: bool = False) -> ProgressBar:
    """A bar for a terminal; elsewhere it would show nothing before its end, and `_say` takes its place."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    return ProgressBar(*columns, console=stderr, transient=passing, disable=not stderr.is_terminal)


def _say(text: str, *, always: bool = False) -> None:
    """A line for whoever reads a log while it grows; a terminal has the bar, and shows only what is said always."""
    if always or not stderr.is_terminal:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def bar(text: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """A progress bar on stderr, or a line in a log once something is done; what it yields advances it."""
    begun = False
    with _bar(passing=True) as shown:
        task = shown.add_task(text, total=total, text="")

        def advance(done: int) -> None:
            nonlocal begun
            if not begun:
                _say(text if total is None else f"{text}: {total} data")
            begun = True
            shown.advance(task, done)

        yield advance


def _print(result: Result, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result.document))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(justify="right", style="bold")
    table.add_column()
    for name, value in [*result.rows, ("run", result.run_dir)]:
        table.add_row(name, escape(value))
    Console().print(table)
