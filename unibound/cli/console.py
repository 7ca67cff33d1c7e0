"""What a person, or a program, is shown of a run: a live progress bar, then one table or one JSON document."""

import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from unibound.cli import mirror
from unibound.errors import UsageError
from unibound.evaluation.evaluate import Evaluation
from unibound.partition.log_z import NormalizedPrior
from unibound.runs.files import write_text
from unibound.runs.result import as_document, rows
from unibound.runs.run import EVALUATION, Progress, Run
from unibound.settings.records import Settings

stderr = Console(stderr=True)


def new_folder(settings: Settings) -> Path:
    """A new folder under runs/, named after what is run and when."""
    names = (settings.stages[-1].estimator.name, settings.prior.name, Path(settings.data.name).stem)
    return Path("runs") / "-".join([*names, datetime.now().strftime("%Y%m%d-%H%M%S")])


def train(run: Run, *, resume: bool, as_json: bool, tensorboard: bool = False) -> None:
    """Train a run to the end, evaluate it, draw its pictures, and print what came out.

    A run that is finished already is only printed again. With `tensorboard`, its metrics are mirrored there.
    """
    finished = run.path / EVALUATION
    if resume and finished.exists():
        document = json.loads(finished.read_text()) | {"run_dir": str(run.path)}
    else:
        epochs = run.train(resume=resume)
        if tensorboard:
            epochs = mirror.mirrored(run.path, epochs)
        try:
            document = _train(run, epochs)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; go on with `unibound run --resume {shlex.quote(str(run.path))}`"
            ) from None
        write_text(finished, json.dumps(document, indent=2) + "\n")
    _print(document, as_json)
    if not document["log_z_trustworthy"]:
        stderr.print(f"unibound: {document['conclusion']}", highlight=False, soft_wrap=True)


def _train(run: Run, epochs: Iterator[Progress]) -> dict[str, Any]:
    stages, total, seconds = run.settings.stages, run.total_epochs, 0.0
    _say(f"{total} epochs into {run.path}")
    with _bar() as bar:
        task = bar.add_task("training", total=total, text="")
        for progress in epochs:
            text = "" if progress.bound is None else f"log p(x) >= {progress.bound:.2f} nats"
            if progress.valid_nll is not None:
                text += f"{', ' if text else ''}valid NLL {progress.valid_nll:.2f}"
            if progress.log_z is not None and not progress.log_z.trustworthy:
                text += " (log Z untrustworthy)"
            name = stages[progress.epoch.stage].estimator.name
            bar.update(task, completed=progress.done, text=text, description=name)
            seconds = progress.seconds
            if run.looks_after(progress.done):
                left = seconds / progress.done * (total - progress.done)
                _say(f"{name}, epoch {progress.done} of {total}: {text}; {seconds:.0f} s, about {left:.0f} s left")
    start = time.perf_counter()
    run.draw()
    normalized = run.normalize()
    test = _evaluate(run, "test", normalized)
    # A sample of the training set of the size of the test set: enough to see overfitting.
    train_nll = _evaluate(run, "train", normalized, limit=len(run.splits.test)).nll
    seconds += time.perf_counter() - start
    return as_document(run, test) | {"train_nll": train_nll, "seconds": seconds}


def _evaluate(run: Run, split: str, normalized: NormalizedPrior | None, *, limit: int | None = None) -> Evaluation:
    total = len(getattr(run.splits, split)[:limit])
    _say(f"evaluating {split}: {total} data")
    with _bar(passing=True) as bar:
        task = bar.add_task(f"evaluating {split}", total=total, text="")
        options = {"limit": limit, "on_progress": lambda done: bar.advance(task, done)}
        return run.evaluate(split, normalized=normalized, **options)


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


def _say(text: str) -> None:
    """A line for whoever reads a log while it grows; a terminal has the bar."""
    if not stderr.is_terminal:
        print(text, file=sys.stderr, flush=True)


def require_split(split: str) -> None:
    """Raise UsageError for what is no part of a data set."""
    if split not in ("train", "valid", "test"):
        raise UsageError(f"--split must be train, valid or test, not {split!r}")


@contextmanager
def bar(text: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """A progress bar on stderr; what it yields advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with ProgressBar(*columns, console=stderr, transient=True) as progress:
        task = progress.add_task(text, total=total)
        yield lambda done: progress.advance(task, done)


def finite(value: Any) -> Any:
    """The same with None for what JSON cannot write: infinities and what is not a number."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(document))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(justify="right", style="bold")
    table.add_column()
    for name, value in [*rows(document), ("run", document["run_dir"])]:
        table.add_row(name, escape(value))
    Console().print(table)
