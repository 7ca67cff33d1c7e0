"""`unibound evaluate`: every estimate of a likelihood in one table or document, and what each allows to conclude."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from unibound.cli.console import bar
from unibound.data.files import File
from unibound.errors import UsageError
from unibound.evaluation.conclusion import Evaluation
from unibound.evaluation.reach import Posterior, Reach
from unibound.partition import LogZ, PartitionEstimator, Sandwich
from unibound.runs.files import require_file
from unibound.runs.made import evaluated
from unibound.runs.pictures import save_arrays
from unibound.runs.prepare import prepared
from unibound.runs.result import Result, finite, numbers
from unibound.runs.run import RESOLVED, Run, read_settings
from unibound.settings import sources
from unibound.settings.sources import Layer


def evaluate(
    run: Run,
    split: str,
    num_particles: int | None,
    partitions: dict[str, PartitionEstimator],
    max_memory: int,
    posterior: Posterior,
    *,
    data: Path | None = None,
    per_datum: Path | None = None,
    as_json: bool,
) -> None:
    """Evaluate a trained run, once for each way to find log Z, and print what came out.

    Args:
        data: a file whose data are evaluated, in the place of the run's own.
        per_datum: an .npz file to write the bounds of single data to.

    Raises:
        UsageError: data that the run is not of, or `per_datum` that cannot be written or is of several estimates.
    """
    if per_datum is not None:
        _require_writable(per_datum, partitions)
    splits = None if data is None else prepared(run, File(data).load().rows(split))
    with bar(f"evaluating {split}", len((splits or run.splits).rows(split))) as advance:
        normalized, seconds = [], []
        for partition in partitions.values():
            start = time.perf_counter()
            normalized.append(run.normalize(partition))
            seconds.append(time.perf_counter() - start)
        options = {"max_memory": max_memory, "posterior": posterior, "on_progress": advance}
        found = run.evaluate_all(split, normalized, splits=splits, num_particles=num_particles, **options)
    found = [attrs.evolve(one, seconds=one.seconds + more) for one, more in zip(found, seconds, strict=True)]
    results = dict(zip(partitions, found, strict=True))
    rows = run.rows(split) if splits is None else splits.rows(split)
    together = evaluated(run, rows, num_particles, max_memory=max_memory)
    if per_datum is not None and found[0].bounds is not None:
        save_arrays(per_datum, {"bound": found[0].bounds})
    if as_json:
        document = Result.of(found[0], partition=next(iter(partitions)), run_dir=run.path).document
        estimates = documents(results)
        own = {"split": split, "of": found[0].of, "partition": estimates[0]["partition"], "estimates": estimates}
        own["made"] = dict(zip(together, documents(together), strict=True))
        print(json.dumps(finite(document | own)))
    else:
        show(split, results, together)
    warn(results | together)


def _require_writable(path: Path, partitions: dict[str, PartitionEstimator]) -> None:
    if path.suffix.lower() != ".npz":
        raise UsageError(f"--per-datum {path} is no .npz file; name one")
    require_file("--per-datum", path, "an .npz file")
    if len(partitions) > 1:
        raise UsageError(f"--per-datum writes one estimate, not those by {', '.join(partitions)}; name one --partition")


def documents(results: dict[str, Evaluation]) -> list[dict[str, Any]]:
    """Every estimate as plain values, nats unless the name says otherwise."""
    return [
        {
            **numbers(result),
            "partition": None if result.log_z is None and result.of == "log p" else name,
            "nll_chains_stderr": result.nll_chains_stderr,
            "of": result.of,
            "gap": result.gap,
            "independent": result.independent,
            "reach": attrs.asdict(result.reach) if isinstance(result.reach, Reach) else None,
            "no_lower_end": result.no_lower_end,
            "log_z": log_z_document(result.log_z),
            "trustworthy": result.trouble is None,
        }
        for name, result in results.items()
    ]


def log_z_document(log_z: LogZ | Sandwich | None) -> dict[str, Any] | None:
    """A log Z as plain values, with its 95% interval, and each side of one that has two."""
    if log_z is None:
        return None
    both = {one.side.value: log_z_document(one) for one in log_z.estimates} if isinstance(log_z, Sandwich) else {}
    return {
        "value": log_z.value,
        "stderr": log_z.stderr,
        "side": log_z.side,
        "of": "log Z",
        "low": log_z.interval.low,
        "high": log_z.interval.high,
        "heuristic": log_z.heuristic,
        "ess": log_z.ess,
        "num_chains": log_z.num_chains,
        "trustworthy": log_z.trustworthy,
        "trouble": log_z.trouble,
        **({"tail": log_z.tail} if isinstance(log_z, LogZ) else {"gap": log_z.gap, **both}),
    }


def show(title: str, results: dict[str, Evaluation], made: Mapping[str, Evaluation] = MappingProxyType({})) -> None:
    """Print one table: a row for each number, then what may be concluded; of p, and of models that q and p make."""
    table = Table(box=None, pad_edge=False)
    table.add_column("nats", style="bold")
    for column in ("value", "± data", "± chains", "errs", "of", "ESS", "seconds"):
        table.add_column(column, justify="left" if column in ("errs", "of") else "right")
    for name, result in [*results.items(), *made.items()]:
        log_z = result.log_z
        for one in () if log_z is None else log_z.estimates:
            ess = "" if one.ess is None else f"{one.ess:.0f}/{one.num_chains}"
            side = one.side.errs + (", if mixed" if one.heuristic else "")
            mark = "" if one.trustworthy else " (untrustworthy)"
            table.add_row(f"log Z, {name}{mark}", f"{one.value:.3f}", "", f"{one.stderr:.3f}", side, "log Z", ess, "")
        normalized = log_z is None and result.of == "log p"
        mark = "" if result.trouble is None else " (untrustworthy)"
        table.add_row(
            f"{title} NLL{'' if normalized else f', {name}'}{mark}",
            f"{result.nll:.3f}",
            f"{result.nll_stderr:.3f}",
            "" if result.nll_chains_stderr is None else f"{result.nll_chains_stderr:.3f}",
            result.side.errs,
            f"-{result.of}" + (f" of {name}" if name in made else ""),
            f"{result.ess:.0f}/{result.num_particles}",
            f"{result.seconds:.1f}",
        )
    out = Console()
    out.print(table)
    for name, result in [*results.items(), *made.items()]:
        out.print(f"{name}: {result.conclusion}", highlight=False)


def warn(results: dict[str, Evaluation]) -> None:
    """Say on stderr, last of all, which estimates are not to be trusted."""
    for name, result in results.items():
        if result.log_z is not None and result.log_z.trouble is not None:
            print(f"unibound: log Z by {name} is untrustworthy: {result.log_z.trouble}", file=sys.stderr)
        elif result.trouble is not None:
            print(f"unibound: {result.conclusion}", file=sys.stderr)


def partitions(names: str, run: Path | None, flags: Layer) -> dict[str, PartitionEstimator]:
    """Partition estimators by their names, with the settings of a run for its own, and those of flags over them.

    Raises:
        UsageError: no name or an unknown one, a setting that none of them has, or a value that it cannot have.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise UsageError("--partition names none; give one or several, as in ais,bdmc")
    base = [] if run is None else [sources.parse(sources.write(read_settings(run)), run / RESOLVED)]
    shared = sources.share("partition", wanted, [flags])
    return {name: sources.resolve([*base, *layers]).partition.settings for name, layers in shared.items()}
