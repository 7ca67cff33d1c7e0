"""Train several estimators on the same data from the same seeds, and set what came out side by side."""

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import attrs
import torch

from unibound.errors import DamagedError, UsageError
from unibound.evaluation.diagnose import gradient_noise, resampling_noise
from unibound.record import settings_class
from unibound.registry import registries
from unibound.runs import checkpoint, metrics
from unibound.runs.build import load
from unibound.runs.environment import data_digest
from unibound.runs.files import read_json, write_sealed
from unibound.runs.folder import RESOLVED, differences, read_settings
from unibound.runs.run import Run
from unibound.settings import sources
from unibound.settings.records import Settings
from unibound.settings.sources import Layer
from unibound.testing.bias import bias

CELL, SUMMARY = "cell.json", "compare.json"
REPEATS = 50
OWN_BATCH = 100  # data whose bound is estimated at once


@attrs.frozen
class Cell:
    """One run of the comparison.

    Args:
        estimator: name.
        num_particles: K; None where the estimator has no such setting.
        settings: of the run.
    """

    estimator: str
    num_particles: int | None
    settings: Settings

    @property
    def name(self) -> str:
        """Name of its folder."""
        size = "" if self.num_particles is None else f"-k{self.num_particles}"
        return f"{self.estimator}{size}-seed{self.settings.seed}"


def plan(estimators: Sequence[str], sizes: Sequence[int], seeds: int, found: list[Layer]) -> list[Cell]:
    """Every estimator with every number of particles and every seed, each fully configured.

    Settings of estimators in the layers go to those estimators that have them.

    Raises:
        UsageError: an estimator that does not exist or refuses what it is asked, a setting that none has.
    """
    known = registries()["estimator"]
    cells = []
    for name, layers in sources.share("estimator", estimators, found).items():
        has_size = "num_particles" in attrs.fields_dict(settings_class(known[name]))
        for size, index in product(sizes if has_size and sizes else [None], range(seeds)):
            sized = {} if size is None else {"estimator": {"num_particles": size}}
            own = Layer(sized, lambda _: f"{name} with {size} particles")  # noqa: B023 - read at once
            settings = sources.resolve([*layers, own])
            cells.append(Cell(name, size, attrs.evolve(settings, seed=settings.seed + index)))
    return cells


def folder_of(cells: list[Cell]) -> Path:
    """The folder of a comparison: the same for the same cells, so that the same command goes on with it."""
    text = "".join(sources.write(cell.settings) for cell in cells)
    names = "-".join(dict.fromkeys(cell.estimator for cell in cells))
    return Path("runs") / f"compare-{names:.60}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def run(
    path: Path, cells: list[Cell], on_progress: Callable[[Cell, int], object]
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Train and measure every cell that is not finished, and yield each with its numbers.

    Raises:
        UsageError: a cell that cannot be trained, before any is, or that another process trains.
    """
    began = {cell.name: data_digest(path / cell.name) for cell in cells} if path.exists() else {}
    if any(began.values()):
        now = load(cells[0].settings).splits.digest()  # cells differ in estimators and seeds alone
        if changed := [name for name, digest in began.items() if digest not in (None, now)]:
            raise UsageError(f"the data are not those that {path / changed[0]} was trained on; name another --out")
    started = [(cell, _open(path / cell.name, cell.settings)) for cell in cells]
    for cell, opened in started:
        finished = path / cell.name / CELL
        if opened is None:
            yield cell, _read(finished, cell)
            continue
        with opened.owned():
            for progress in opened.train(resume=bool(checkpoint.finished(opened.checkpoints))):
                on_progress(cell, progress.done)
            numbers = measure(opened)
            write_sealed(finished, json.dumps(numbers, indent=2) + "\n")
        yield cell, numbers


def _open(path: Path, settings: Settings) -> Run | None:
    """The run of a cell, new or begun; None if it is finished."""
    if not (path / RESOLVED).exists():
        return Run.create(path, settings)
    if differences(read_settings(path), settings):
        raise UsageError(f"{path} holds a run with other settings; name another --out")
    return None if (path / CELL).exists() else Run.open(path, weights=False)


def _read(path: Path, cell: Cell) -> dict[str, Any]:
    """The numbers of a finished cell. Raises DamagedError for a file that is none."""
    what, cure = "no measured run", "remove it, and give the command again"
    found = read_json(path, cure, what) or {}
    try:
        summarize([(cell, found)])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DamagedError(f"{path} is {what} ({type(error).__name__}: {error!s:.80}); {cure}") from error
    return found


def measure(run: Run) -> dict[str, Any]:
    """What a trained run is worth, and how noisy and biased its gradient is; in nats and seconds."""
    estimator, settings = run.settings.stages[-1].estimator.settings, run.settings
    evaluation = run.evaluate("test")
    steps = -(-len(run.splits.rows("train")) // settings.batch_size)
    lines = metrics.read(run.path)
    train = run.split("train")
    x = train[: settings.batch_size]
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        noise = gradient_noise(run.joint, estimator, x, REPEATS)
        added = resampling_noise(run.joint, estimator, x, REPEATS)
        offsets = bias(run.joint, estimator, train)
        bound = _own_bound(run)
    log_z = 0.0 if evaluation.log_z is None else evaluation.log_z.value
    return {
        "nll": evaluation.nll,
        "nll_stderr": evaluation.nll_stderr,
        "nll_side": evaluation.side,
        "bound": None if bound is None else bound - log_z,
        # Of the quickest epoch: whatever else the machine does only ever adds to it.
        "seconds_per_step": min(line["seconds"] for line in lines) / steps,
        "gradient": {
            group: {"variance": found.variance, "snr": found.signal_to_noise}
            | ({"resampling": _share(added[group], found.variance)} if group in added else {})
            for group, found in noise.items()
            if group != "auxiliary"
        },
        "bias": offsets,
    }


def _share(added: float, variance: float) -> float:
    """What was added, relative to the variance without it."""
    return added / (variance - added) if added < variance else math.inf


@torch.no_grad()
def _own_bound(run: Run) -> float | None:
    """Mean of the estimator's own bound over the test data, in nats of log p*; None where it claims none."""
    estimator = run.settings.stages[-1].estimator.settings
    with run.joint.evaluating():
        found = [estimator(run.joint, x).bound for x in run.splits.rows("test").split(OWN_BATCH)]
    present = [bound for bound in found if bound is not None]
    return torch.cat(present).double().mean().item() if present else None


def summarize(results: Sequence[tuple[Cell, dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row per estimator and number of particles: means over seeds, with the error bars of seeds and of data."""
    groups: dict[tuple[str, int | None], list[dict[str, Any]]] = {}
    for cell, numbers in results:
        groups.setdefault((cell.estimator, cell.num_particles), []).append(numbers)
    return [
        {"estimator": name, "num_particles": size, "seeds": len(found), **_row(found)}
        for (name, size), found in groups.items()
    ]


def _row(found: list[dict[str, Any]]) -> dict[str, Any]:
    nll = [numbers["nll"] for numbers in found]
    return {
        "bound": _mean([numbers["bound"] for numbers in found]),
        "nll": statistics.mean(nll),
        "nll_stderr_seeds": statistics.stdev(nll) / len(nll) ** 0.5 if len(nll) > 1 else None,
        "nll_stderr_data": statistics.mean(numbers["nll_stderr"] for numbers in found),
        "nll_side": found[0]["nll_side"],
        "seconds_per_step": min(numbers["seconds_per_step"] for numbers in found),
        "gradient": {
            group: {what: _mean([n["gradient"][group][what] for n in found]) for what in whats}
            for group, whats in found[0]["gradient"].items()
        },
        "bias": {group: _mean([numbers["bias"][group] for numbers in found]) for group in found[0]["bias"] or {}},
    }


def _mean(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.mean(present) if len(present) == len(values) else None
