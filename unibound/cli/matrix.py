"""Which estimators go with which priors and models, found out by configuring each of them."""

from collections.abc import Iterable, Iterator
from itertools import groupby, product

import attrs
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unibound.errors import UsageError
from unibound.joint import JointBound
from unibound.registry import registries
from unibound.runs.build import build
from unibound.runs.train import Training
from unibound.settings.convert import choice
from unibound.settings.records import Choice, Settings, Stage

NUM_DATA, X_SHAPE = 8, (8, 8)

COLUMNS = 6
"""Priors that fit side by side."""


@attrs.frozen
class Cell:
    """One combination, with the default settings of its three plugins.

    Args:
        estimator, prior, model: names.
        reason: why it is refused, and what would work; None if it can be trained.
        untrained: parameter groups that have parameters here, and which the estimator leaves as they are.
    """

    estimator: str
    prior: str
    model: str
    reason: str | None
    untrained: tuple[str, ...] = ()


def cells(models: Iterable[str] | None = None) -> Iterator[Cell]:
    """Every estimator with every prior and, by default, every model: model by model, prior by prior."""
    found = registries()
    for model, prior in product(models or found["model"], found["prior"]):
        joint = None
        for estimator in found["estimator"]:
            cell, joint = _try(estimator, prior, model, joint)
            yield cell


def try_cell(estimator: str, prior: str, model: str) -> Cell:
    """Configure one combination just as a run does, on a few data of bits."""
    return _try(estimator, prior, model)[0]


def _try(estimator: str, prior: str, model: str, joint: JointBound | None = None) -> tuple[Cell, JointBound | None]:
    """One cell, and the joint of its model and prior, which serves every estimator: it is never trained."""
    try:
        training = configure(settings_of(estimator, prior, model), small_data(), joint)
    except UsageError as error:
        return Cell(estimator, prior, model, str(error)), joint
    groups = {name for name, part in training.joint.parts().items() if any(True for _ in part.parameters())}
    untrained = training.stages[0].estimator.settings.untrained
    return Cell(estimator, prior, model, None, tuple(sorted(groups & untrained))), training.joint


def settings_of(estimator: str, prior: str, model: str) -> Settings:
    """A run of three plugins, by name, and nothing else but defaults."""
    stage = Stage(estimator=_choice("estimator", estimator))
    return Settings(model=_choice("model", model), prior=_choice("prior", prior), stages=(stage,))


def configure(settings: Settings, x: Tensor, joint: JointBound | None = None) -> Training:
    """What a run does before its first step. Raises UsageError for what cannot be trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if joint is None:
            joint = build(settings, x.mean(0))
            joint.p.bind(joint.q, x)
        return Training(joint, settings.stages, x, batch_size=len(x))


def small_data() -> Tensor:
    """A few data of bits [N, *X], no two pixels with the same rate."""
    rates = torch.linspace(0.1, 0.9, X_SHAPE[0] * X_SHAPE[1]).view(X_SHAPE)
    uniform = torch.rand((NUM_DATA, *X_SHAPE), generator=torch.Generator().manual_seed(0))
    return (uniform < rates).to(torch.get_default_dtype())


def _choice(kind: str, name: str) -> Choice:
    """A plugin with its defaults; UsageError if it has a setting without one."""
    try:
        return choice(kind, name)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{name} has a setting without a default, so it cannot be tried: {error}") from error


def show(found: list[Cell]) -> None:
    """Print a table per model, estimators against priors, and under them why some are refused."""
    console, notes = Console(highlight=False), dict[str, int]()
    for model, own in groupby(found, lambda cell: cell.model):
        found_here = list(own)
        priors = list(dict.fromkeys(cell.prior for cell in found_here))
        for some in (set(priors[first : first + COLUMNS]) for first in range(0, len(priors), COLUMNS)):
            console.print(_table(model, [cell for cell in found_here if cell.prior in some], notes))
            console.print()
    console.print("yes: can be trained; a number: refused when the run is configured, because")
    for note, number in notes.items():
        console.print(f"{number:>3}  {note}", markup=False)
    idle: dict[str, set[str]] = {}
    for cell in found:
        idle.setdefault(cell.estimator, set()).update(cell.untrained)
    for estimator, groups in idle.items():
        if groups:
            console.print(f"part: {estimator} leaves {' and '.join(sorted(groups))} to another stage", markup=False)


def _table(model: str, found: list[Cell], notes: dict[str, int]) -> Table:
    """Estimators against priors, for one model; a reason that is new gets the next number."""
    rows: dict[str, dict[str, Cell]] = {}
    for cell in found:
        rows.setdefault(cell.estimator, {})[cell.prior] = cell
    table = Table(box=None, pad_edge=False)
    table.add_column(f"model {model}", style="bold", no_wrap=True)
    for prior in dict.fromkeys(cell.prior for cell in found):
        table.add_column(prior, justify="center")
    for estimator, row in sorted(rows.items()):
        table.add_row(estimator, *(_mark(cell, notes) for cell in row.values()))
    return table


def _mark(cell: Cell, notes: dict[str, int]) -> str:
    if cell.reason is not None:
        return f"[dim]{notes.setdefault(cell.reason, len(notes) + 1)}[/]"
    return "part" if cell.untrained else "yes"
