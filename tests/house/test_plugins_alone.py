"""Any plugin can be deleted: what does not need it goes on without, and says so where it does need it."""

import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unibound import Run, registries, registry
from unibound.cli import main
from unibound.hookspecs import GROUP
from unibound.settings import sources

ROOT = Path(__file__).parents[2]
OWN = [point for point in entry_points(group=GROUP) if point.module.startswith("unibound_plugins.")]

TINY = {"epochs": 1, "num_particles": 3, "batch_size": 10}
RUNS: dict[str, dict[str, Any]] = {
    "bits": {
        "model": {"name": "mlp", "num_latents": 3, "hidden": [4]},
        "prior": "bernoulli",
        "likelihood": "bernoulli",
        "estimator": "vimco",
    },
    "reals": {
        "model": {"name": "sbn", "sizes": [2], "units": "reals"},
        "prior": "gaussian",
        "likelihood": "laplace",
        "posterior": "gaussian",
        "estimator": "sgvb",
    },
    "energy": {
        "model": "identity",
        "prior": {"name": "rbm", "num_hidden": 2, "num_chains": 5},
        "likelihood": "bernoulli",
        "estimator": "cd",
        "partition": "exact",
    },
}
"""Runs that have no part in common but a likelihood: none needs more than it names."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    x = (np.random.default_rng(0).random((30, 4)) < 0.4).astype(np.float32)
    path = tmp_path / "data.npz"
    np.savez(path, train=x[:20], valid=x[20:25], test=x[25:])
    return path


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Hide plugins, as if their files were deleted."""

    def hide(*points: EntryPoint) -> None:
        for point in points:
            monkeypatch.setitem(sys.modules, point.module, None)
        left = [point for point in entry_points(group=GROUP) if point not in points]
        monkeypatch.setattr(registry, "entry_points", lambda group: left)
        registries.cache_clear()

    yield hide
    monkeypatch.undo()
    registries.cache_clear()


def registered(point: EntryPoint) -> dict[str, str]:
    """Kind of each name that a plugin registers."""
    return {
        name: kind
        for kind, known in registries().items()
        for name, cls in known.items()
        if cls.__module__ == point.module
    }


def names(values: Any) -> Iterator[str]:
    """Every plugin that settings name."""
    for value in values.values():
        yield value["name"] if isinstance(value, Mapping) else value


def run(path: Path, data: Path, values: dict[str, Any]) -> float:
    settings = sources.resolve([sources.Layer({"data": str(data), **TINY, **values})])
    made = Run.create(path, settings)
    list(made.train())
    return made.finish().nll


@pytest.mark.parametrize("point", OWN, ids=lambda point: point.name)
def test_what_does_not_need_a_plugin_goes_on_without(
    point: EntryPoint, hidden: Any, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = registered(point)
    hidden(point)
    for name, kind in gone.items():
        assert name not in registries()[kind]
    left = {name: values for name, values in RUNS.items() if not any(word in gone for word in names(values))}
    assert left
    for name, values in left.items():
        assert np.isfinite(run(tmp_path / name, data, values))
    with pytest.raises(SystemExit) as end:
        main(["list"])
    assert end.value.code in (0, None)
    assert capsys.readouterr().err == ""


def test_a_run_needs_no_more_than_it_names(hidden: Any, tmp_path: Path, data: Path) -> None:
    values = RUNS["bits"]
    hidden(*(point for point in OWN if not any(name in names(values) for name in registered(point))))
    assert np.isfinite(run(tmp_path / "run", data, values))
