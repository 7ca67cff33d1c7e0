"""Any plugin can be deleted: what does not need it goes on without, and says so where it does need it."""

import ast
import contextlib
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unibound import Run, UsageError, hookspecs, registries
from unibound.cli import main
from unibound.hookspecs import GROUP
from unibound.runs.run import read_settings
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
        monkeypatch.setattr(hookspecs, "entry_points", lambda group: left)
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


def run(path: Path, data: Path, values: dict[str, Any]) -> Run:
    settings = sources.resolve([sources.Layer({"data": str(data), **TINY, **values})])
    made = Run.create(path, settings)
    list(made.train())
    return made


def without(gone: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The runs that name nothing of what is gone."""
    return {name: values for name, values in RUNS.items() if not any(word in gone for word in names(values))}


@pytest.mark.parametrize("point", OWN, ids=lambda point: point.name)
def test_what_does_not_need_a_plugin_goes_on_without(
    point: EntryPoint, hidden: Any, tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = registered(point)
    hidden(point)
    for name, kind in gone.items():
        assert name not in registries()[kind]
    values = next(iter(without(gone).values()))
    assert np.isfinite(run(tmp_path / "run", data, values).evaluate("test").nll)
    with contextlib.suppress(SystemExit):
        main(["list"])
    listed = capsys.readouterr()
    assert listed.err == ""
    assert "estimator" in listed.out


@pytest.mark.slow
@pytest.mark.parametrize("point", OWN, ids=lambda point: point.name)
def test_every_run_that_does_not_need_a_plugin_ends(point: EntryPoint, hidden: Any, tmp_path: Path, data: Path) -> None:
    gone = registered(point)
    hidden(point)
    for name, values in without(gone).items():
        assert np.isfinite(run(tmp_path / name, data, values).finish().nll)


def test_a_run_needs_no_more_than_it_names(hidden: Any, tmp_path: Path, data: Path) -> None:
    values = RUNS["bits"]
    hidden(*(point for point in OWN if not any(name in names(values) for name in registered(point))))
    made = run(tmp_path / "run", data, values)
    assert np.isfinite(made.finish().nll)
    assert read_settings(made.path) == made.settings


def test_what_needs_it_says_so(hidden: Any, tmp_path: Path, data: Path) -> None:
    hidden(*(point for point in OWN if registered(point).keys() & {"ais", "gaussian"}))
    energy = {name: value for name, value in RUNS["energy"].items() if name != "partition"}
    with pytest.raises(UsageError, match=r"^unknown partition estimator 'ais'; "):
        run(tmp_path / "energy", data, energy)
    with pytest.raises(UsageError, match=r"prior: unknown prior 'gaussian'; did you mean "):
        run(tmp_path / "reals", data, RUNS["reals"])


NAMES = {name for known in registries().values() for name in known}
CORE = ROOT / "unibound"
DEFAULTS = CORE / "settings" / "defaults.py"


def looked_up(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every plugin that is looked up, chosen or compared with by a string that stands there."""
    for node in ast.walk(tree):
        found: list[ast.expr] = []
        if isinstance(node, ast.Subscript) and "registries(" in ast.unparse(node.value):
            found = [node.slice]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).lower().endswith("choice"):
            found = [*node.args, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq | ast.In) for op in node.ops):
            found = [one for side in (node.left, *node.comparators) for one in ast.walk(side)]
        for one in found:
            if isinstance(one, ast.Constant) and one.value in NAMES:
                yield one.lineno, str(one.value)


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE)))
def test_the_core_looks_up_no_plugin_by_name(path: Path) -> None:
    if path != DEFAULTS:
        found = [f"{path.relative_to(ROOT)}:{line}: {name!r}" for line, name in looked_up(ast.parse(path.read_text()))]
        assert not found, f"{found}; defaults stand in settings/defaults.py"


@pytest.mark.parametrize(
    "text",
    [
        'registries()["prior"]["rbm"]',
        'choice("prior", name="rbm")',
        'name == "rbm"',
        'name in ("mlp", "x")',
        '"ais" != n',
    ],
)
def test_a_name_would_be_seen(text: str) -> None:
    assert list(looked_up(ast.parse(text)))
