"""Train several estimators on the same data from the same seeds, and set what came out side by side."""

import hashlib
import json
import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from types import MappingProxyType
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
from unibound.runs.jobs import each
from unibound.runs.paired import worse
from unibound.runs.run import Run
from unibound.settings import sources
from unibound.settings.convert import Flag
from unibound.settings.records import Settings
from unibound.settings.sources import Layer
from unibound.testing.bias import bias

CELL, SUMMARY = "cell.json", "compare.json"
REPEATS = 50
MAKE_DATA = ("data", "binarization", "model", "prior", "likelihood", "dtype")  # settings that say what data are
OWN_BATCH = 100  # data whose bound is estimated at once


@attrs.frozen
class Cell:
    """One run of the comparison.

    Args:
        estimator: name.
        num_particles: K; None where the estimator has no such setting.
        settings: of the run.
        varied: what it has of the settings that vary, as it was typed, by their dotted names.
    """

    estimator: str
    num_particles: int | None
    settings: Settings
    varied: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """Name of its folder."""
        size = "" if self.num_particles is None else f"-k{self.num_particles}"
        varied = "".join(f"-{name}={value}" for name, value in self.varied)
        return f"{self.estimator}{size}{re.sub(r'[^A-Za-z0-9_.=,-]', '_', varied)}-seed{self.settings.seed}"


def plan(
    estimators: Sequence[str],
    sizes: Sequence[int],
    seeds: int,
    found: list[Layer],
    vary: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Cell]:
    """Every estimator with every number of particles, every value of what varies and every seed, fully configured.

    Settings of estimators in the layers go to those estimators that have them.

    Args:
        estimators: names.
        sizes: numbers of particles.
        seeds: how many.
        found: layers of settings, the strongest last.
        vary: values, as they are typed, of settings by their dotted names.

    Raises:
        UsageError: an estimator that does not exist or refuses what it is asked, a setting that none has.
    """
    known = registries()["estimator"]
    cells = []
    for name, layers in sources.share("estimator", estimators, found).items():
        has_size = "num_particles" in attrs.fields_dict(settings_class(known[name]))
        every = product(*([(setting, value) for value in values] for setting, values in vary.items()))
        for size, varied, index in product(sizes if has_size and sizes else [None], list(every), range(seeds)):
            sized = {} if size is None else {"estimator": {"num_particles": size}}
            own = Layer(sized, lambda _: f"{name} with {size} particles")  # noqa: B023 - read at once
            settings = sources.resolve([*layers, own, _layer(varied)])
            cells.append(Cell(name, size, attrs.evolve(settings, seed=settings.seed + index), varied))
    return cells


def _layer(varied: tuple[tuple[str, str], ...]) -> Layer:
    values: dict[str, Any] = {}
    for setting, value in varied:
        sources.nest(values, setting.split("."), Flag(value))
    return Layer(values, lambda name: f"--vary {name.replace('_', '-')}")


def folder_of(cells: list[Cell]) -> Path:
    """The folder of a comparison: the same for the same cells, so that the same command goes on with it."""
    text = "".join(sources.write(cell.settings) for cell in cells)
    names = "-".join(dict.fromkeys(cell.estimator for cell in cells))
    return Path("runs") / f"compare-{names:.60}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def run(
    path: Path, cells: list[Cell], on_progress: Callable[[Cell, int], object], jobs: int = 1
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Train and measure every cell that is not finished, and yield each with its numbers, as it is done.

    Args:
        path: folder of all.
        cells: what is trained.
        on_progress: called with a cell and the epochs done.
        jobs: how many at once, in processes of their own; the numbers are the same.

    Raises:
        UsageError: a cell that cannot be trained, before any is, or that another process trains.
        UniboundError: a job whose process was ended.
    """
    _require_same_data(path, cells)
    for cell in cells:
        _begin(path / cell.name, cell.settings)
    places, done = {path / cell.name: cell for cell in cells}, []
    for place, cell in places.items():
        if (place / CELL).exists():
            done.append(place)
            yield cell, _read(place / CELL, cell)
    left = [place for place in places if place not in done]
    if jobs > 1:
        for place in each(train, left, jobs):
            on_progress(places[place], places[place].settings.total_epochs)
            yield places[place], _read(place / CELL, places[place])
        return
    for place in left:
        cell = places[place]
        yield cell, train(place, lambda progress: on_progress(cell, progress))  # noqa: B023 - called at once


def train(path: Path, on_progress: Callable[[int], object] = lambda done: None) -> dict[str, Any]:
    """Train and measure the run of a cell, from where it stands, and keep its numbers; they do not depend on others."""
    opened = Run.open(path, weights=False)  # which draws from its seed, whatever was drawn before
    with opened.owned():
        for progress in opened.train(resume=bool(checkpoint.finished(opened.checkpoints))):
            on_progress(progress.done)
        numbers = measure(opened)
        write_sealed(path / CELL, json.dumps(numbers, indent=2) + "\n")
    return numbers


def _require_same_data(path: Path, cells: list[Cell]) -> None:
    began = {cell.name: data_digest(path / cell.name) for cell in cells} if path.exists() else {}
    now: dict[str, str] = {}
    for cell in cells:
        if (digest := began.get(cell.name)) is not None:
            what = str(
                [getattr(cell.settings, name) for name in ("data", "binarization", "model", "prior", "likelihood")]
            )
            now[what] = now.get(what) or load(cell.settings).splits.digest()  # read once for all that are alike
            if digest != now[what]:
                raise UsageError(f"the data are not those that {path / cell.name} was trained on; name another --out")


def _begin(path: Path, settings: Settings) -> None:
    """Make the folder of a cell, or see that it is of these settings."""
    if not (path / RESOLVED).exists():
        Run.create(path, settings)
    elif differences(read_settings(path), settings):
        raise UsageError(f"{path} holds a run with other settings; name another --out")


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
        "data_sha256": run.data_digest,
        "bounds": None if evaluation.bounds is None else evaluation.bounds.tolist(),
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
    """One row per estimator, number of particles and what varies: means over seeds, with error bars of seeds and data.

    Each but the first has its difference to it, on the same data, datum by datum.
    """
    groups: dict[tuple[str, int | None, tuple[tuple[str, str], ...]], list[dict[str, Any]]] = {}
    for cell, numbers in results:
        groups.setdefault((cell.estimator, cell.num_particles, cell.varied), []).append(numbers)
    first = next(iter(groups.values()), [])
    return [
        {"estimator": name, "num_particles": size, "varied": dict(varied), "seeds": len(found), **_row(found)}
        | _beside(found, first)
        for (name, size, varied), found in groups.items()
    ]


def _beside(found: list[dict[str, Any]], first: list[dict[str, Any]]) -> dict[str, float | None]:
    """How much worse its NLL is than that of the first, in nats, ± over paired data."""
    both = [*found, *first]
    alike = len({numbers.get("data_sha256") for numbers in both}) == 1 and all(
        numbers.get("bounds") for numbers in both
    )
    if found is first or not alike:
        return {"difference": None, "difference_stderr": None}
    own, other = (torch.tensor([one["bounds"] for one in some], dtype=torch.float64).mean(0) for some in (found, first))
    difference, stderr = worse(own, other)
    return {"difference": difference, "difference_stderr": stderr if len(own) > 1 else None}


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
