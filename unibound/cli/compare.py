"""What a person, or a program, is shown of a comparison: one table, one JSON document, one picture."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from unibound.errors import UsageError
from unibound.runs.compare import SUMMARY, Cell, folder_of, plan, run, summarize
from unibound.runs.files import write_text
from unibound.settings.sources import Layer

PLOTS = ("compare.png", "compare.svg")


def compare(
    estimators: str, num_particles: str, seeds: int, found: list[Layer], out: Path | None, *, as_json: bool
) -> None:
    """Train what is not trained yet, and print what came out of all.

    Args:
        estimators: names, with commas between them.
        num_particles: whole numbers, with commas between them; may be empty.
        seeds: how many.
        found: layers of settings, the strongest last.
        out: folder of the comparison; by default one under runs/ that is the same for the same settings.
    """
    if seeds < 1:
        raise UsageError(f"--seeds must be at least 1, not {seeds}")
    chosen = found[-1].values.get("estimator")
    if isinstance(chosen, str) or (isinstance(chosen, dict) and "name" in chosen):
        raise UsageError("--estimator names one estimator; name those to compare with --estimators")
    cells = plan(_names(estimators), _sizes(num_particles), seeds, found)
    path = out or folder_of(cells)
    document = {"folder": str(path), "rows": summarize(_run(path, cells))}
    write_text(path / SUMMARY, json.dumps(document, indent=2) + "\n")
    plotted = plot(document["rows"], path)
    if as_json:
        print(json.dumps(document))
        return
    console = Console(highlight=False)
    console.print(results(document["rows"]))
    console.print()
    console.print(gradients(document["rows"]))
    console.print(LEGEND, markup=False)
    console.print(f"{path / SUMMARY}; {', '.join(map(str, plotted))}", markup=False)


ROUNDING = 1e-6  # of a relative difference; weights were trained in float32
LEGEND = """
Nats. bound: the estimator's own, on the test data. NLL: mean ± its standard error over seeds ± over data.
Gradients, on one batch where training ended: variance is the trace of the covariance, SNR the length of the mean over
the root of that; resampling is what sending one particle back for all added to the variance; bias is relative to the
exact gradient, where there are few enough latents and particles to list."""


def results(rows: list[dict[str, Any]]) -> Table:
    """What each estimator and number of particles came to."""
    table = _table("bound", "test NLL", "ms per step")
    for row in rows:
        seeds = "" if row["nll_stderr_seeds"] is None else f" ± {row['nll_stderr_seeds']:.3f}"
        table.add_row(
            *_label(row),
            "-" if row["bound"] is None else f"{row['bound']:.3f}",
            f"{row['nll']:.3f}{seeds} ± {row['nll_stderr_data']:.3f}",
            f"{1e3 * row['seconds_per_step']:.2f}",
        )
    return table


def gradients(rows: list[dict[str, Any]]) -> Table:
    """Noise and bias of the gradient of each group, where it gets one."""
    biased = any(row["bias"] for row in rows)
    resampled = any("resampling" in noise for row in rows for noise in row["gradient"].values())
    columns = [*(["resampling"] if resampled else []), *(["bias"] if biased else [])]
    table = _table("gradient of", "variance", "SNR", *columns)
    for row in rows:
        for group, noise in row["gradient"].items():
            bias = [_bias(row["bias"].get(group))] if biased else []
            added = [_percent(noise.get("resampling"))] if resampled else []
            table.add_row(*_label(row), group, _short(noise["variance"]), _short(noise["snr"]), *added, *bias)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("estimator", style="bold", no_wrap=True)
    for name in ("K", *columns):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _label(row: dict[str, Any]) -> tuple[str, str]:
    return escape(row["estimator"]), "-" if row["num_particles"] is None else str(row["num_particles"])


def plot(rows: list[dict[str, Any]], path: Path) -> list[Path]:
    """Draw the comparison; the files written."""
    from matplotlib.figure import Figure  # which takes longer to import than most commands
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for name in dict.fromkeys(row["estimator"] for row in rows):
        own = [row for row in rows if row["estimator"] == name]
        size, nll = [row["num_particles"] or 1 for row in own], [row["nll"] for row in own]
        error = [max(row["nll_stderr_seeds"] or 0.0, 0.0) for row in own]
        left.errorbar(size, nll, error, label=name, marker="o", capsize=3)
        middle.errorbar([1e3 * row["seconds_per_step"] for row in own], nll, error, label=name, marker="o", capsize=3)
        right.plot(
            size, [row["gradient"].get("q", {}).get("snr") or float("nan") for row in own], marker="o", label=name
        )
    for axes, x, y in (
        (left, "particles", "test NLL, nats"),
        (middle, "ms per step", "test NLL, nats"),
        (right, "particles", "SNR of q's gradient"),
    ):
        axes.set(xlabel=x, ylabel=y, xscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_formatter(NullFormatter())
    sizes = sorted({row["num_particles"] or 1 for row in rows})
    left.set_xticks(sizes)
    right.set_xticks(sizes)
    left.legend()
    for name in PLOTS:
        figure.savefig(path / name, dpi=120)
    return [path / name for name in PLOTS]


def _run(path: Path, cells: list[Cell]) -> list[tuple[Cell, dict[str, Any]]]:
    total = sum(stage.epochs for stage in cells[0].settings.stages)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[text]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task("runs", total=len(cells), text="")

        def show(cell: Cell, done: int) -> None:
            bar.update(task, text=f"{cell.name}, epoch {done} of {total}")

        found = []
        try:
            for result in run(path, cells, show):
                found.append(result)
                bar.advance(task)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command goes on where this stopped") from None
    return found


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"--estimators must be names, each once, with commas between them, not {text!r}")
    return names


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(size) for size in text.split(",") if size.strip()]
    except ValueError:
        sizes = [0]
    if any(size < 1 for size in sizes) or len(set(sizes)) < len(sizes):
        raise UsageError(f"--num-particles must be whole numbers from 1, each once, with commas between, not {text!r}")
    return sizes


def _bias(value: float | None) -> str:
    return "0" if value is not None and value < ROUNDING else _short(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"+{100 * value:.2g}%"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
