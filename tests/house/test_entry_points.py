"""Files in plugins/, entry points in pyproject.toml and what is installed are the same."""

import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

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


PAGES: dict[str, set[str]] = {}
"""Names of the classes that are registered, by the module they are on."""
for _registry in registries().values():
    for _cls in _registry.values():
        PAGES.setdefault(_cls.__module__, set()).add(_cls.__name__)

PACKAGES = sorted({page.rpartition(".")[0] for page in PAGES})


@pytest.mark.parametrize("name", PACKAGES)
def test_each_class_can_be_imported_from_its_package(name: str) -> None:
    package, pages = import_module(name), [page for page in PAGES if page.startswith(f"{name}.")]
    for page in pages:
        missing = PAGES[page] - set(dir(package))
        assert not missing, f"{name}/__init__.py: add, for each of {missing}: from {page} import X as X"
        assert all(getattr(package, cls) is getattr(import_module(page), cls) for cls in PAGES[page])
    classes = set(dir(package))
    assert classes == set().union(*(PAGES[page] for page in pages)), "it names what is not registered"


@pytest.mark.parametrize("deleted", sorted(PAGES))
def test_a_deleted_page_takes_away_its_own_names_only(deleted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, deleted, None)  # as if there were no such file
    for page, names in PAGES.items():
        package = import_module(page.rpartition(".")[0])
        assert all(hasattr(package, name) == (page != deleted) for name in names), page


def test_packages_of_plugins_import_nothing_before_it_is_asked_for() -> None:
    code = f"import sys, {', '.join(PACKAGES)}; assert 'torch' not in sys.modules and 'unibound' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
