"""`unibound diagnose`: what goes on inside a trained model."""

import json

import attrs
import torch
from rich.console import Console
from rich.table import Table

from unibound.front.trained import Trained
from unibound.partition.log_z import HEAVY_TAIL
from unibound.runs.result import finite
from unibound.runs.run import Run


def diagnose(run: Run, split: str, num_particles: int, count: int, *, as_json: bool) -> None:
    """Look into a trained run and print what was found."""
    found = Trained(run).diagnose(split=split, num_particles=num_particles, count=count)
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
