"""Files in plugins/, entry points in pyproject.toml and what is installed are the same."""

import tomllib
from importlib.metadata import entry_points
from pathlib import Path

from unibound import registries

ROOT = Path(__file__).parents[2]
WRITTEN: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["unibound"]


def test_every_file_has_an_entry_point_and_the_reverse() -> None:
    folder = ROOT / "plugins"
    files = {
        ".".join(path.relative_to(folder).with_suffix("").parts)
        for path in (folder / "unibound_plugins").rglob("*.py")
        if path.name != "__init__.py"
    }
    assert set(WRITTEN.values()) == files, (
        f"plugins/ and [project.entry-points.unibound] disagree about {set(WRITTEN.values()) ^ files}"
    )


def test_entry_points_are_called_after_their_files() -> None:
    for name, module in WRITTEN.items():
        assert module.removesuffix("_") == f"unibound_plugins.{name}"


def test_what_is_installed_is_what_is_written() -> None:
    installed = {
        point.name: point.value
        for point in entry_points(group="unibound")
        if point.dist is not None and point.dist.name == "unibound"
    }
    assert installed == WRITTEN, "entry points are stale; install again: pip install -c constraints.txt -e '.[test]'"


def test_built_ins_enter_by_the_same_door() -> None:
    for kind, registry in registries().items():
        assert len(registry) > 0, f"no built-in {kind}"
        for name in registry:
            assert registry[name].__module__.startswith("unibound_plugins."), (kind, name)
