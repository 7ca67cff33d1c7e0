"""Finished runs on the same data, compared datum by datum: what is hard for one is hard for all, and cancels."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
from torch import Tensor

from unibound.errors import UsageError
from unibound.evaluation.conclusion import Evaluation
from unibound.runs.environment import data_digest
from unibound.runs.run import Run


@attrs.frozen
class Difference:
    """A run beside the first of several, in nats; positive where it is worse.

    Args:
        path: its folder.
        nll, nll_stderr: its own NLL with the standard error over data.
        difference: mean over data of its NLL less that of the first.
        stderr: standard error of that over data, paired.
        log_z_stderr: what the estimates of log Z of both may add, which is the same for all data.
        side: on which side its NLL errs.
    """

    path: str
    nll: float
    nll_stderr: float
    difference: float
    stderr: float
    log_z_stderr: float
    side: str


def compare(
    paths: Sequence[Path], split: str, num_particles: int | None, on_progress: Callable[[int], object]
) -> Iterator[Difference]:
    """Evaluate each run on a split of the data that all were trained on, and yield it beside the first.

    Raises:
        UsageError: a folder that is named twice, or runs on different data.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("a run is named twice; name each once")
    first, runs = None, [Run.open(path) for path in paths]
    for path in paths:
        if data_digest(path) != data_digest(paths[0]):
            raise UsageError(f"{path} was trained on other data than {paths[0]}, and nothing pairs theirs; name others")
    for path, run in zip(paths, runs, strict=True):
        found = run.evaluate(split, num_particles=num_particles, posterior="none", on_progress=on_progress)
        first = first or found
        yield _beside(path, found, first)


def worse(bounds: Tensor, first: Tensor) -> tuple[float, float]:
    """How much lower bounds [N] are than those of the first on the same data: mean, and its standard error; nats."""
    gap = first - bounds
    return gap.mean().item(), gap.std().item() / math.sqrt(len(gap)) if len(gap) > 1 else math.nan


def _beside(path: Path, found: Evaluation, first: Evaluation) -> Difference:
    difference, stderr = worse(_bounds(found), _bounds(first))
    # A run has no error of its own beside itself.
    noise = 0.0 if found is first else math.hypot(_log_z_stderr(found), _log_z_stderr(first))
    return Difference(str(path), found.nll, found.nll_stderr, difference, stderr, noise, found.side.value)


def _bounds(found: Evaluation) -> Tensor:
    assert found.bounds is not None
    return found.bounds


def _log_z_stderr(found: Evaluation) -> float:
    return 0.0 if found.log_z is None else found.log_z.stderr
