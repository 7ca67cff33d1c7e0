"""`unibound certify`: an interval for a likelihood with what it rests on, or a refusal."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from unibound.cli.console import bar
from unibound.cli.evaluate import partitions
from unibound.errors import UniboundError, UsageError
from unibound.evaluation.certify import Certificate
from unibound.evaluation.certify import certify as certify_prior
from unibound.evaluation.certify.rbm_file import read_data, read_rbm
from unibound.front.trained import Trained
from unibound.runs.result import finite
from unibound.runs.run import Run
from unibound.settings.records import MAX_THREADS
from unibound.settings.sources import Layer


def certify(
    run: Path | None,
    rbm: Path | None,
    data: Path | None,
    partition: str | None,
    flags: Layer,
    num_particles: int | None,
    posterior: str,
    unit: str,
    *,
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
    if not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"--threads must be at least 1 and at most {MAX_THREADS}, not {threads}")
    opened = None if run is None else Run.open(run)
    if partition is not None or flags.values:
        options["partitions"] = partitions(partition or "", run, flags)
    with bar("annealing", None) as advance:
        if opened is not None:
            torch.set_num_threads(threads)
            options |= {} if num_particles is None else {"num_particles": num_particles}
            options |= {"posterior": posterior, "on_progress": advance}
            found = Trained(opened).certify(**options)
        else:
            assert rbm is not None
            assert data is not None
            torch.set_num_threads(threads)
            test, train = read_data(data, unit)
            prior, others = read_rbm(rbm, unit, lambda said: print(said, file=sys.stderr))
            found = certify_prior(prior, test, train=train, others=others, on_progress=advance, **options)
    certificate(found, as_json=as_json)
    if found.verdict == "refused":
        raise UniboundError(f"refused to certify: {'; '.join(found.reasons)}")


def certificate(certificate: Certificate, *, as_json: bool) -> None:
    """Print a certificate, or a refusal."""
    if as_json:
        print(json.dumps(finite(certificate.document)))
        return
    out = Console()
    table = Table(box=None, pad_edge=False)
    for column in ("evidence", "nats", "±", "of", "errs", "", "note"):
        table.add_column(column, justify="right" if column in ("nats", "±") else "left")
    for row in certificate.evidence:
        worth = "proof" if row.proof else "check"
        stderr = "" if row.stderr is None else f"{row.stderr:.2f}"
        table.add_row(row.name, f"{row.value:.2f}", stderr, row.of, row.side.errs, worth, row.note)
    out.print(table)
    if certificate.verdict == "refused":
        out.print("[bold]refused[/bold]: no likelihood can be given")
    else:
        low, high = certificate.log_z_low, certificate.log_z_high
        out.print("[bold]certified[/bold]", highlight=False)
        out.print(f"log Z {certificate.log_z:.2f}, with 95% confidence in [{low:.2f}, {high:.2f}] nats")
        low, high = certificate.test_ll_low, certificate.test_ll_high
        where = f"at least {low:.2f}" if high is None else f"in [{low:.2f}, {high:.2f}]"
        out.print(
            f"mean log-likelihood of these {certificate.num_data} data {certificate.test_ll:.2f}, with 95% confidence "
            f"{where} nats; other data like these: ± {certificate.test_ll_stderr or math.nan:.2f} more"
        )
    for reason in certificate.reasons:
        out.print(f"  {reason}", highlight=False, markup=False)
    for warning in certificate.warnings:
        out.print(f"  warning: {warning}", highlight=False, markup=False)
    out.print(f"  {certificate.seconds:.1f} s", highlight=False)
