"""What a person, or a program, is shown of a run: a live progress bar, then one table or one JSON document."""

import json
import math
import shlex
import sys
import time
from collections.abc import Iterator
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
from unibound.evaluate import Evaluation
from unibound.partition import NormalizedPrior
from unibound.run import EVALUATION, Progress, Run, write_text
from unibound.settings import Settings

stderr = Console(stderr=True)

SIDES = {"equal": "exact", "stochastic_lower": "errs low", "stochastic_upper": "errs high"}


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


def as_document(run: Run, result: Evaluation) -> dict[str, Any]:
    """The result as plain values, nats unless the name says otherwise."""
    log_z = result.log_z
    return {
        **numbers(result),
        "partition": None if log_z is None else run.settings.partition.name,
        "log_z": 0.0 if log_z is None else log_z.value,
        "log_z_stderr": 0.0 if log_z is None else log_z.stderr,
        "log_z_side": "equal" if log_z is None else log_z.side,
        "log_z_ess": None if log_z is None else log_z.ess,
        "log_z_chains": None if log_z is None else log_z.num_chains,
        "log_z_trustworthy": log_z is None or log_z.trustworthy,
        "run_dir": str(run.path),
    }


def numbers(result: Evaluation) -> dict[str, Any]:
    """What an evaluation says of the NLL, as plain values, whatever normalized the prior."""
    return {
        "nll": result.nll,
        "nll_stderr": None if math.isnan(result.nll_stderr) else result.nll_stderr,
        "nll_side": result.side,
        "nll_low": None if result.interval is None else result.interval[0],
        "nll_high": result.ceiling,
        "bits_per_dim": result.bits_per_dim,
        "num_particles": result.num_particles,
        "ess": result.ess,
        "conclusion": result.conclusion,
        "seconds": result.seconds,
    }


def require_file(flag: str, path: Path, kind: str) -> None:
    """Raise UsageError, in the words of a flag, for a path that no file can be written to."""
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"{flag} {path} is no file in an existing folder; name {kind} to write")


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


def rows(document: dict[str, Any]) -> list[tuple[str, str]]:
    """What came out, as a person reads it: name and value."""
    stderr_nll = "" if document["nll_stderr"] is None else f" ± {document['nll_stderr']:.3f}"
    bits = f"({document['bits_per_dim']:.4f} bits/dim)"
    found = [("test NLL", f"{document['nll']:.3f}{stderr_nll} nats {bits}")]
    found.append(("train NLL", f"{document['train_nll']:.3f} nats"))
    if document["partition"] is None:
        found.append(("log Z", "0, the prior is normalized"))
    else:
        value = f"{document['log_z']:.4f} ± {document['log_z_stderr']:.4f} nats"
        mark = "" if document["log_z_trustworthy"] else ", untrustworthy"
        found.append(("log Z", f"{value} by {document['partition']} ({SIDES[document['log_z_side']]}{mark})"))
    if document["log_z_ess"] is not None:
        chains = f"effective sample size {document['log_z_ess']:.1f} of {document['log_z_chains']}"
        found.append(("chains", chains))
    particles = f"effective sample size {document['ess']:.1f} of {document['num_particles']} per datum"
    return [
        *found,
        ("particles", particles),
        ("side", document["conclusion"]),
        ("time", f"{document['seconds']:.1f} s"),
    ]


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
