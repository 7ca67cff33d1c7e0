"""What a person, or a program, is shown of a comparison: one table, one JSON document, one picture."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from unibound.errors import UsageError
from unibound.runs.compare import SUMMARY, Cell, folder_of, plan, run, summarize
from unibound.runs.files import write_text
from unibound.settings import sources
from unibound.settings.sources import Layer

PLOTS = ("compare.png", "compare.svg")


def compare(
    estimators: str,
    num_particles: str,
    seeds: int,
    found: list[Layer],
    out: Path | None,
    *,
    vary: Sequence[str] = (),
    jobs: int = 1,
    as_json: bool,
) -> None:
    """Train what is not trained yet, and print what came out of all.

    Args:
        estimators: names, with commas between them; may be empty where something else varies.
        num_particles: whole numbers, with commas between them; may be empty.
        seeds: how many.
        found: layers of settings, the strongest last.
        out: folder of the comparison; by default one under runs/ that is the same for the same settings.
        vary: settings with their values, each as prior.num-hidden=10,20.
        jobs: how many runs at once.
    """
    if seeds < 1:
        raise UsageError(f"--seeds must be at least 1, not {seeds}")
    if jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {jobs}")
    varied, chosen = _varied(vary), found[-1].values.get("estimator")
    if estimators or not varied:
        if isinstance(chosen, str) or (isinstance(chosen, dict) and "name" in chosen):
            raise UsageError("--estimator names one estimator; name those to compare with --estimators")
        names = _names(estimators)
    else:
        names = [sources.resolve(found).stages[-1].estimator.name]
    cells = plan(names, _sizes(num_particles), seeds, found, varied)
    path = out or folder_of(cells)
    document = {"folder": str(path), "rows": summarize(_run(path, cells, jobs))}
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
Nats. bound: the estimator's own, on the test data. NLL: mean ± its standard error over seeds ± over data. Difference:
NLL less that of the first, so that what is positive is worse, ± over data, which are paired; log Z adds its own error.
Gradients, on one batch where training ended: variance is the trace of the covariance, SNR the length of the mean over
the root of that; resampling is what sending one particle back for all added to the variance; bias is relative to the
exact gradient, where there are few enough latents and particles to list."""


def results(rows: list[dict[str, Any]]) -> Table:
    """What each estimator and number of particles came to."""
    paired = any(row["difference"] is not None for row in rows)
    table = _table("bound", "test NLL", *(["difference"] if paired else []), "ms per step")
    for row in rows:
        seeds = "" if row["nll_stderr_seeds"] is None else f" ± {row['nll_stderr_seeds']:.3f}"
        table.add_row(
            *_label(row),
            "-" if row["bound"] is None else f"{row['bound']:.3f}",
            f"{row['nll']:.3f}{seeds} ± {row['nll_stderr_data']:.3f}",
            *([_difference(row)] if paired else []),
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
    varied = "".join(f" {name.replace('_', '-')}={value}" for name, value in row["varied"].items())
    return escape(row["estimator"] + varied), "-" if row["num_particles"] is None else str(row["num_particles"])


def _difference(row: dict[str, Any]) -> str:
    if row["difference"] is None:
        return ""
    return f"{row['difference']:+.3f}" + ("" if (error := row["difference_stderr"]) is None else f" ± {error:.3f}")


def plot(rows: list[dict[str, Any]], path: Path) -> list[Path]:
    """Draw the comparison; the files written."""
    from matplotlib.figure import Figure  # which takes longer to import than most commands
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for name in dict.fromkeys(_label(row)[0] for row in rows):
        own = [row for row in rows if _label(row)[0] == name]
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


def _run(path: Path, cells: list[Cell], jobs: int) -> list[tuple[Cell, dict[str, Any]]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[text]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task("runs", total=len(cells), text="")

        def show(cell: Cell, done: int) -> None:
            bar.update(task, text=f"{cell.name}, epoch {done} of {cell.settings.total_epochs}")

        found = []
        try:
            for result in run(path, cells, show, jobs):
                found.append(result)
                bar.advance(task)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command goes on where this stopped") from None
    place = {cell.name: index for index, cell in enumerate(cells)}
    return sorted(found, key=lambda pair: place[pair[0].name])


def _varied(vary: Sequence[str]) -> dict[str, list[str]]:
    """What varies, by the dotted name of a setting; values that hold commas have semicolons between them."""
    varied: dict[str, list[str]] = {}
    for text in vary:
        flag, found, values = text.removeprefix("--").partition("=")
        name = flag.strip().replace("-", "_")
        listed = [value.strip() for value in values.split(";" if ";" in values else ",") if value.strip()]
        if not found or not name or not listed or len(set(listed)) < len(listed) or name in varied:
            raise UsageError(f"--vary must be a setting and values, each once, as prior.num-hidden=10,20, not {text!r}")
        if name == "seed":
            raise UsageError("--vary seed: --seeds says how many seeds each has")
        varied[name] = listed
    return varied


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
