"""Evaluations as one table for people, one document for programs, and what each allows to conclude."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from unibound.certify import Certificate, certify_joint
from unibound.certify import certify as certify_prior
from unibound.certify.rbm_file import read_data, read_rbm
from unibound.cli import console
from unibound.convert import choice
from unibound.diagnose import diagnose as look_into
from unibound.errors import UniboundError, UsageError
from unibound.evaluate import Evaluation
from unibound.partition import HEAVY_TAIL, LogZ, PartitionEstimator
from unibound.run import Run


def documents(results: dict[str, Evaluation]) -> list[dict[str, Any]]:
    """Every estimate as plain values, nats unless the name says otherwise."""
    return [
        {
            **console.numbers(result),
            "partition": None if result.log_z is None and result.of == "log p" else name,
            "nll_chains_stderr": result.nll_chains_stderr,
            "of": result.of,
            "gap": result.gap,
            "log_z": log_z_document(result.log_z),
            "trustworthy": result.trouble is None,
        }
        for name, result in results.items()
    ]


def log_z_document(log_z: LogZ | None) -> dict[str, Any] | None:
    """A log Z as plain values, with its 95% interval."""
    if log_z is None:
        return None
    low, high = log_z.interval
    return {
        "value": log_z.value,
        "stderr": log_z.stderr,
        "side": log_z.side,
        "of": "log Z",
        "low": low,
        "high": high,
        "gap": log_z.gap,
        "heuristic": log_z.heuristic,
        "ess": log_z.ess,
        "num_chains": log_z.num_chains,
        "tail": log_z.tail,
        "trustworthy": log_z.trustworthy,
        "trouble": log_z.trouble,
        "opposite": log_z_document(log_z.opposite),
    }


def show(title: str, results: dict[str, Evaluation]) -> None:
    """Print one table: a row for each number, then what may be concluded."""
    table = Table(box=None, pad_edge=False)
    table.add_column("nats", style="bold")
    for column in ("value", "± data", "± chains", "errs", "of", "ESS", "seconds"):
        table.add_column(column, justify="left" if column in ("errs", "of") else "right")
    for name, result in results.items():
        log_z = result.log_z
        for one in [] if log_z is None else [each for each in (log_z.opposite, log_z) if each is not None]:
            ess = "" if one.ess is None else f"{one.ess:.0f}/{one.num_chains}"
            side = console.SIDES[one.side] + (", if mixed" if one.heuristic else "")
            mark = "" if one.trustworthy else " (untrustworthy)"
            table.add_row(f"log Z, {name}{mark}", f"{one.value:.3f}", "", f"{one.stderr:.3f}", side, "log Z", ess, "")
        normalized = log_z is None and result.of == "log p"
        mark = "" if result.trouble is None else " (untrustworthy)"
        table.add_row(
            f"{title} NLL{'' if normalized else f', {name}'}{mark}",
            f"{result.nll:.3f}",
            f"{result.nll_stderr:.3f}",
            "" if result.nll_chains_stderr is None else f"{result.nll_chains_stderr:.3f}",
            "high" if result.side == "upper" else "unknown",
            f"-{result.of}",
            f"{result.ess:.0f}/{result.num_particles}",
            f"{result.seconds:.1f}",
        )
    out = Console()
    out.print(table)
    for name, result in results.items():
        out.print(f"{name}: {result.conclusion}", highlight=False)


def warn(results: dict[str, Evaluation]) -> None:
    """Say on stderr, last of all, which estimates are not to be trusted."""
    for name, result in results.items():
        if result.trouble is not None:
            print(f"unibound: log Z by {name} is untrustworthy: {result.trouble}", file=sys.stderr)


def evaluate(
    run: Run,
    split: str,
    num_particles: int | None,
    partitions: dict[str, PartitionEstimator],
    max_memory: int,
    *,
    as_json: bool,
) -> None:
    """Evaluate a trained run, once for each way to find log Z, and print what came out."""
    with bar(f"evaluating {split}", len(getattr(run.splits, split))) as advance:
        normalized, seconds = [], []
        for partition in partitions.values():
            start = time.perf_counter()
            normalized.append(run.normalize(partition))
            seconds.append(time.perf_counter() - start)
        found = run.evaluate_all(
            split, normalized, num_particles=num_particles, max_memory=max_memory, on_progress=advance
        )
    found = [attrs.evolve(one, seconds=one.seconds + more) for one, more in zip(found, seconds, strict=True)]
    results = dict(zip(partitions, found, strict=True))
    if as_json:
        document = console.as_document(run, found[0])
        estimates = documents(results)
        own = {"split": split, "of": found[0].of, "partition": estimates[0]["partition"], "estimates": estimates}
        print(json.dumps(finite(document | own)))
    else:
        show(split, results)
    warn(results)


def certificate(certificate: Certificate, *, as_json: bool) -> None:
    """Print a certificate, or a refusal."""
    if as_json:
        print(json.dumps(finite(attrs.asdict(certificate))))
        return
    out = Console()
    table = Table(box=None, pad_edge=False)
    for column in ("evidence", "nats", "±", "of", "errs", "", "note"):
        table.add_column(column, justify="right" if column in ("nats", "±") else "left")
    for row in certificate.evidence:
        worth = "proof" if row.proof else "check"
        stderr = "" if row.stderr is None else f"{row.stderr:.2f}"
        errs = "no" if row.errs == "exact" else row.errs
        table.add_row(row.name, f"{row.value:.2f}", stderr, row.of, errs, worth, row.note)
    out.print(table)
    if certificate.verdict == "refused":
        out.print("[bold]refused[/bold]: no likelihood can be given")
    else:
        low, high = certificate.log_z_low, certificate.log_z_high
        out.print("[bold]certified[/bold]", highlight=False)
        out.print(f"log Z {certificate.log_z:.2f}, with 95% confidence in [{low:.2f}, {high:.2f}] nats")
        ends = [end if end is None else f"{end:.2f}" for end in (certificate.test_ll_low, certificate.test_ll_high)]
        where = f"at least {ends[0]}" if ends[1] is None else f"in [{ends[0]}, {ends[1]}]"
        out.print(
            f"mean log-likelihood of these {certificate.num_data} data {certificate.test_ll:.2f}, with 95% confidence "
            f"{where} nats; other data like these: ± {certificate.test_ll_stderr or math.nan:.2f} more"
        )
    for reason in certificate.reasons:
        out.print(f"  {reason}", highlight=False, markup=False)
    out.print(f"  {certificate.seconds:.1f} s", highlight=False)


def partitions(run: Run, names: str | None, **overrides: Any) -> dict[str, PartitionEstimator]:
    """Partition estimators by their names, with the settings of the run for its own, and what overrides them.

    Raises:
        UsageError: an unknown name, or a setting that none of them has.
    """
    own = run.settings.partition
    wanted = [own.name] if names is None else [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise UsageError("--partition names none; give one or several, as in ais,raise,bdmc")
    chosen = {
        name: own.settings if name == own.name else choice("partition_estimator", name).settings for name in wanted
    }
    for field, value in overrides.items():
        having = [name for name, record in chosen.items() if hasattr(record, field)]
        if value is not None and not having:
            raise UsageError(f"{', '.join(chosen)} has no setting {field}; leave it out")
        if value is not None:
            chosen |= {name: attrs.evolve(chosen[name], **{field: value}) for name in having}
    return chosen


def certify(
    run: Path | None,
    rbm: Path | None,
    data: Path | None,
    *,
    num_particles: int | None,
    threads: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Certify a run, or anybody's RBM; a refusal is raised once it is printed.

    Raises:
        UsageError: neither or both are named, or they cannot be read.
        UniboundError: the likelihood was refused.
    """
    if (run is None) == (rbm is None) or (rbm is None) != (data is None):
        raise UsageError("certify takes the folder of a run, or else both --rbm FILE and --data FILE")
    if threads < 1:
        raise UsageError(f"--threads must be at least 1, not {threads}")
    with bar("annealing", None) as advance:
        if run is not None:
            opened = Run.open(run)
            torch.set_num_threads(threads)
            splits = opened.splits
            particles = opened.settings.num_particles if num_particles is None else num_particles
            options |= {"num_particles": particles, "on_progress": advance}
            found = certify_joint(opened.joint, splits.test, splits.train, **options)
        else:
            assert rbm is not None
            assert data is not None
            torch.set_num_threads(threads)
            test, train = read_data(data)
            found = certify_prior(read_rbm(rbm), test, train=train, on_progress=advance, **options)
    certificate(found, as_json=as_json)
    if found.verdict == "refused":
        raise UniboundError(f"refused to certify: {'; '.join(found.reasons)}")


def diagnose(run: Run, split: str, num_particles: int, count: int, *, as_json: bool) -> None:
    """Look into a trained run and print what was found."""
    require_split(split)
    estimator = run.settings.stages[-1].estimator.settings
    run.joint.auxiliary = estimator.auxiliary(run.splits.train[:2])
    with torch.random.fork_rng():
        torch.manual_seed(run.settings.seed)
        found = look_into(run.joint, estimator, getattr(run.splits, split)[:count], num_particles=num_particles)
    levels = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
    ess, tail = (torch.nanquantile(values.cpu(), levels).tolist() for values in (found.ess, found.tail))
    if as_json:
        document = {
            "split": split,
            "num_data": len(found.ess),
            "num_particles": found.num_particles,
            "ess": found.ess.tolist(),
            "tail": found.tail.tolist(),
            "heavy": found.heavy,
            "gap": found.gap,
            "gap_stderr": found.gap_stderr,
            "active_units": found.active,
            "units": found.units,
            "gradients": {name: attrs.asdict(group) for name, group in found.groups.items()},
            "run_dir": str(run.path),
        }
        print(json.dumps(finite(document)))
        return
    table = Table(box=None, pad_edge=False)
    for column in (f"of {len(found.ess)} data", "least", "10%", "median", "90%", "most"):
        table.add_column(column, justify="right" if column != f"of {len(found.ess)} data" else "left")
    table.add_row(f"effective sample size of {found.num_particles}", *(f"{value:.1f}" for value in ess))
    table.add_row("Pareto tail index", *(f"{value:.2f}" for value in tail))
    out = Console()
    out.print(table)
    out.print(f"tail index above {HEAVY_TAIL} (not to be relied on): {100 * found.heavy:.1f}% of the data")
    out.print(f"doubling to {found.num_particles} particles gained {found.gap:.3f} ± {found.gap_stderr:.3f} nats")
    out.print(f"active units: {found.active} of {found.units}")
    for name, group in found.groups.items():
        ratio = f"variance {group.variance:.3g}, signal to noise {group.signal_to_noise:.3g}"
        out.print(f"gradient of {name} ({group.parameters} parameters): {ratio}")


def require_split(split: str) -> None:
    """Raise UsageError for what is no part of a data set."""
    if split not in ("train", "valid", "test"):
        raise UsageError(f"--split must be train, valid or test, not {split!r}")


@contextmanager
def bar(text: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """A progress bar on stderr; what it yields advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console.stderr, transient=True) as progress:
        task = progress.add_task(text, total=total)
        yield lambda done: progress.advance(task, done)


def finite(value: Any) -> Any:
    """The same with None for what JSON cannot write: infinities and what is not a number."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
