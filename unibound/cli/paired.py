"""`unibound compare RUN RUN`: finished runs beside the first of them."""

import json
from collections.abc import Sequence
from pathlib import Path

import attrs
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unibound.cli.console import bar
from unibound.report import several
from unibound.runs import paired
from unibound.runs.result import finite

LEGEND = """
Nats. difference: NLL less that of the first run, so that what is positive is worse; ± over data that are paired, and
± log Z, by which all data are off together. Where an NLL errs high, so may a difference, and either way."""


def compare(runs: Sequence[Path], split: str, num_particles: int | None, *, as_json: bool) -> None:
    """Evaluate runs and print their paired differences."""
    found = _evaluated(runs, split, num_particles)
    if as_json:
        print(json.dumps(finite({"split": split, "runs": [attrs.asdict(one) for one in found]})))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("run", style="bold", overflow="fold")
    for name in (f"{split} NLL", "difference", "± log Z"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        beside = (f"{one.difference:+.3f} ± {one.stderr:.3f}", f"{one.log_z_stderr:.3f}")
        table.add_row(
            escape(one.path), f"{one.nll:.3f} ± {one.nll_stderr:.3f}", *(("", "") if one is found[0] else beside)
        )
    out = Console(highlight=False)
    out.print(table)
    out.print(LEGEND, markup=False)


def report(runs: Sequence[Path], output: Path) -> Path:
    """Write the page about several runs, and return its path."""
    several.require_room(runs, output)
    return several.write(runs, _evaluated(runs, "test", None), output)


def _evaluated(runs: Sequence[Path], split: str, num_particles: int | None) -> list[paired.Difference]:
    with bar(f"evaluating {len(runs)} runs on {split}", None) as advance:
        return list(paired.compare(runs, split, num_particles, advance))
