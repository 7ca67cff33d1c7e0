"""Who may import whom. The order is written once, here; the tests walk the syntax trees."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import unibound

ROOT = Path(__file__).parents[2]
CORE, PLUGINS = ROOT / "unibound", ROOT / "plugins" / "unibound_plugins"

ORDER = """
claim disk errors kernels moved tails
ranks
record support weights
data draws likelihood
distributions
networks
prior
energies generation
bidirectional joint missing partition sequences settled sigmoid_bound
estimator model
hookspecs
guests
registry
settings testing
evaluation
runs
loggers report
front
cli
"""
"""A module or package imports only from lines above its own; `unibound` itself comes after `runs`."""

DOOR = {"__init__", "guests", "hookspecs", "moved", "ranks", "record", "registry"}
FLAT = {path.stem for path in CORE.glob("*.py")} - DOOR
"""The vocabulary of a plugin; the others are the door, and what is behind it."""

PUBLIC = FLAT | {"data", "distributions", "energies", "kernels", "partition", "sequences"}
"""What a plugin may import, beside the names in `unibound.__all__`."""

ONLY_IN = {
    "zuko": "unibound/distributions/flows.py",
    "triton": "unibound/kernels/fused.py",
    "numba": "unibound/kernels/",
    "llvmlite": "unibound/kernels/",
}


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a file imports, `from a import b` as a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{label(path)}:{node.lineno}: relative import; write the full name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


RANK = {name: rank for rank, line in enumerate(ORDER.split("\n")) for name in line.split()}


def part(path: Path) -> str:
    """The first name below `unibound` of a file."""
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def test_every_module_has_a_place_in_the_order() -> None:
    found = {part(path) for path in modules(CORE)} - {"__init__"}
    assert found == RANK.keys(), f"put {found ^ RANK.keys()} into (or out of) ORDER"


def test_architecture_shows_this_order_and_every_module() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    shown = re.search(r"^    claim.*?(?=\n\n)", page, re.DOTALL | re.MULTILINE)
    assert shown is not None
    assert [sorted(re.findall(r"\w+", line)) for line in shown[0].split("<-")] == [
        sorted(line.split()) for line in ORDER.split("\n") if line
    ]
    tree = set(re.findall(r"\w+", page[page.index("    unibound/") : page.index("    plugins/ ")]))
    there = {path.relative_to(CORE).with_suffix("").parts for path in modules(CORE) if path.stem != "__init__"}
    missing = {".".join(parts[:2]) for parts in there if parts[min(1, len(parts) - 1)] not in tree}
    assert not missing, f"docs/architecture.md: the tree lacks {missing}"


@pytest.mark.parametrize("path", [path for path in modules(CORE) if path != CORE / "__init__.py"], ids=label)
def test_core_imports_downwards(path: Path) -> None:
    own = part(path)
    below = {own} | {other for other in RANK if RANK[other] < RANK[own]}
    for line, name in imports(path):
        where = f"{label(path)}:{line}: {own} imports {name}"
        assert not name.startswith(("unibound_plugins", "plugins")), f"{where}, but the core knows no plugin"
        if name == "unibound" or (name.startswith("unibound.") and name.split(".")[1] not in RANK):
            assert RANK[own] > RANK["runs"], f"{where}; import from the module that defines it"
        elif name.startswith("unibound."):
            assert name.split(".")[1] in below, f"{where}, which is not below it"


@pytest.mark.parametrize("path", [path for path in modules(PLUGINS) if path.name != "__init__.py"], ids=label)
def test_plugins_import_public_names_only(path: Path) -> None:
    for line, name in imports(path):
        where = f"{label(path)}:{line}: imports {name}"
        assert not name.startswith(("unibound_plugins", "plugins")), f"{where}; move what plugins share into the core"
        if name.startswith("unibound."):
            assert name.split(".")[1] in PUBLIC.union(unibound.__all__), f"{where}, which is not public"


@pytest.mark.parametrize("path", [*modules(CORE), *modules(PLUGINS)], ids=label)
def test_compilers_are_imported_where_they_are_used(path: Path) -> None:
    for line, name in imports(path):
        place = ONLY_IN.get(name.split(".")[0], "")
        assert label(path).startswith(place), f"{label(path)}:{line}: imports {name}; only {place} may"


def test_nobody_imports_plugins_by_their_folder() -> None:
    """`plugins.unibound_plugins` also imports in a checkout, and gives a second copy of every class."""
    folders = [ROOT / name for name in ("unibound", "plugins", "tests", "benches", "docs", "examples")]
    for path in (path for folder in folders for path in modules(folder)):
        for line, name in imports(path):
            assert not name.startswith("plugins."), f"{label(path)}:{line}: write unibound_plugins"


def test_public_names_are_all_there() -> None:
    assert sorted(unibound.__all__) == unibound.__all__, "sort __all__"
    missing = [name for name in unibound.__all__ if not hasattr(unibound, name)]
    assert not missing
