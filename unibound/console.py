"""What a person, or a program, is shown of a run: a live progress bar, then one table or one JSON document."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from unibound.evaluate import Evaluation
from unibound.partition import PartitionEstimator
from unibound.run import EVALUATION, Run, write_text
from unibound.settings import Settings

stderr = Console(stderr=True)


def new_folder(settings: Settings) -> Path:
    """A new folder under runs/, named after what is run and when."""
    names = (settings.stages[-1].estimator.name, settings.prior.name, Path(settings.data.name).stem)
    return Path("runs") / "-".join([*names, datetime.now().strftime("%Y%m%d-%H%M%S")])


def train(run: Run, *, resume: bool, as_json: bool) -> None:
    """Train a run to the end, evaluate it, draw its pictures, and print what came out."""
    start = time.perf_counter()
    stages = run.settings.stages
    with _progress("bound") as bar:
        task = bar.add_task("training", total=sum(stage.epochs for stage in stages), text="")
        for progress in run.train(resume=resume):
            text = "" if progress.bound is None else f"log p(x) >= {progress.bound:.2f} nats"
            if progress.valid_nll is not None:
                text += f", valid NLL {progress.valid_nll:.2f}"
            name = stages[progress.epoch.stage].estimator.name
            bar.update(task, completed=progress.done, text=text, description=name)
    run.draw()
    test = _evaluate(run, "test")
    # A sample of the training set of the size of the test set: enough to see overfitting.
    train_nll = _evaluate(run, "train", limit=len(run.splits.test)).nll
    document = as_document(run, test) | {"train_nll": train_nll, "seconds": time.perf_counter() - start}
    write_text(run.path / EVALUATION, json.dumps(document, indent=2) + "\n")
    _print(run, test, document, as_json)


def evaluate(
    run: Run, split: str, num_particles: int | None, partition: PartitionEstimator | None, *, as_json: bool
) -> None:
    """Evaluate a trained run and print what came out."""
    result = _evaluate(run, split, num_particles=num_particles, partition=partition)
    _print(run, result, as_document(run, result, partition) | {"split": split}, as_json)


def as_document(run: Run, result: Evaluation, partition: PartitionEstimator | None = None) -> dict[str, Any]:
    """The result as plain values, nats unless the name says otherwise."""
    log_z = result.log_z
    name = type(partition).__name__.lower() if partition is not None else run.settings.partition.name
    return {
        "nll": result.nll,
        "nll_stderr": result.nll_stderr,
        "bits_per_dim": result.bits_per_dim,
        "nll_side": result.side,
        "num_particles": result.num_particles,
        "ess": result.ess,
        "partition": None if log_z is None else name,
        "log_z": 0.0 if log_z is None else log_z.value,
        "log_z_stderr": 0.0 if log_z is None else log_z.stderr,
        "log_z_side": "equal" if log_z is None else log_z.side,
        "log_z_ess": None if log_z is None else log_z.ess,
        "log_z_trustworthy": log_z is None or log_z.trustworthy,
        "conclusion": result.conclusion,
        "seconds": result.seconds,
        "run_dir": str(run.path),
    }


def _evaluate(run: Run, split: str, *, limit: int | None = None, **options: Any) -> Evaluation:
    total = len(getattr(run.splits, split)[:limit])
    with _progress("evaluation") as bar:
        task = bar.add_task(f"evaluating {split}", total=total, text="")
        return run.evaluate(split, limit=limit, on_progress=lambda done: bar.advance(task, done), **options)


def _progress(name: str) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    return Progress(*columns, console=stderr, transient=name == "evaluation")


def _print(run: Run, result: Evaluation, document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(document))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(justify="right", style="bold")
    table.add_column()
    nats = f"{result.nll:.3f} ± {result.nll_stderr:.3f} nats"
    table.add_row(f"{document.get('split', 'test')} NLL", f"{nats} ({result.bits_per_dim:.4f} bits/dim)")
    if "train_nll" in document:
        table.add_row("train NLL", f"{document['train_nll']:.3f} nats")
    log_z = result.log_z
    if log_z is None:
        table.add_row("log Z", "0, the prior is normalized")
    else:
        side = {"equal": "exact", "stochastic_lower": "errs low", "stochastic_upper": "errs high"}[log_z.side]
        table.add_row("log Z", f"{log_z.value:.4f} ± {log_z.stderr:.4f} nats by {document['partition']} ({side})")
        if log_z.ess is not None:
            table.add_row("chains", f"effective sample size {log_z.ess:.1f} of {log_z.num_chains}")
    table.add_row("particles", f"effective sample size {result.ess:.1f} of {result.num_particles} per datum")
    table.add_row("side", result.conclusion)
    table.add_row("time", f"{document['seconds']:.1f} s")
    table.add_row("run", str(run.path))
    Console().print(table)
