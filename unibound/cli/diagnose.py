"""`unibound diagnose`: what goes on inside a trained model."""

import json

import torch
from rich.console import Console
from rich.table import Table

from unibound.evaluation.composition import Composition
from unibound.front.trained import Trained
from unibound.partition.log_z import HEAVY_TAIL
from unibound.runs.diagnosis import columns, document, rows
from unibound.runs.run import Run


def diagnose(run: Run, split: str, num_particles: int, count: int, probe_steps: int, *, as_json: bool) -> None:
    """Look into a trained run and print what was found."""
    found = Trained(run).diagnose(split=split, num_particles=num_particles, count=count, probe_steps=probe_steps)
    if as_json:
        print(json.dumps(document(found, split) | {"run_dir": str(run.path)}))
        return
    levels = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
    ess, tail = (torch.nanquantile(values.cpu(), levels).tolist() for values in (found.ess, found.tail))
    table = _table(f"of {len(found.ess)} data", "least", "10%", "median", "90%", "most")
    table.add_row(f"effective sample size of {found.num_particles}", *(f"{value:.1f}" for value in ess))
    table.add_row("Pareto tail index", *(f"{value:.2f}" for value in tail))
    out = Console()
    if found.composition is not None:
        _print(out, split, found.composition)
    out.print(table)
    out.print(f"tail index above {HEAVY_TAIL} (not to be relied on): {100 * found.heavy:.1f}% of the data")
    out.print(f"doubling to {found.num_particles} particles gained {found.gap:.3f} ± {found.gap_stderr:.3f} nats")
    out.print(f"active units: {found.active} of {found.units}")
    for name, group in found.groups.items():
        ratio = f"variance {group.variance:.3g}, signal to noise {group.signal_to_noise:.3g}"
        out.print(f"gradient of {name} ({group.parameters} parameters): {ratio}")


def _print(out: Console, split: str, composition: Composition) -> None:
    table = _table(*columns(split, composition))
    for row in rows(composition):
        table.add_row(*row)
    out.print(table)
    if composition.trouble is not None:
        out.print(f"log Z is not to be trusted, nor what rests on it: {composition.trouble}")
    out.print()


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in others:
        table.add_column(column, justify="right")
    return table
