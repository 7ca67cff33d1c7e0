"""The commands about plugins: what there is, what it is, whether it is right, and how to begin one."""

import inspect
import sys
from pathlib import Path
from typing import Annotated, Literal

import attrs
from cyclopts import Parameter

from unibound.errors import UsageError
from unibound.hookspecs import printable


def list_plugins(
    what: Literal["plugins", "recipes"] = "plugins",
    *,
    matrix: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """List every plugin installed, by kind, with the distribution it comes from; or the recipes there are.

    Args:
        what: plugins, or recipes: runs that ship with the package, for --config.
        matrix: instead, which estimators go with which priors and models, and why the others do not.
        json: print one JSON document.
    """
    if what == "recipes":
        from unibound.settings.recipes import recipes

        about = {name: path.read_text().partition("\n")[0].removeprefix("# ") for name, path in recipes().items()}
        print(*(f"{name}  {text}" for name, text in about.items()), sep="\n") if not json else _print_json(about)
        return
    if matrix:
        from unibound.cli.matrix import cells, show

        found = list(cells())
        _print_json([attrs.asdict(cell) for cell in found]) if json else show(found)
        return
    from unibound.cli.catalog import entries

    found = entries()
    if json:
        _print_json([{"kind": one.kind, "name": one.name, "about": one.about, "from": one.owner} for one in found])
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("kind", "name", "", "from"):
        table.add_column(column, style="bold" if column == "name" else None)
    for one in found:
        table.add_row(*(escape(printable(text)) for text in (one.kind, one.name, one.about, one.owner)))
    Console().print(table)


def check(package: str, *, json: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Sit the plugins of a package through the exam, and print law by law what held, with the numbers.

    The exit code is 0 if every law held, 1 if one failed, 2 if there is nothing to examine.

    Args:
        package: an installed distribution, a package or module that can be imported, or a Python file.
        json: print one JSON document.
    """
    from unibound.testing import examine

    if not examine.check(package, as_json=json):
        sys.exit(1)


def new(name: str, *, dir: Path = Path(".")) -> None:
    """Write the skeleton of a plugin distribution: an estimator, a prior, and tests that sit both through the exam.

    Args:
        name: of the distribution, and of the new folder.
        dir: where the folder is made.
    """
    from unibound.cli import skeleton

    folder, package = skeleton.new(name, dir)
    print(f"{folder} is ready; next:\n")
    print(f"    pip install -e '{folder}[test]'")
    print(f"    pytest {folder}")
    print(f"    unibound check {name}")
    print(f"    unibound run --estimator {package}_loo --prior {package}_mixture")


def show(name: str) -> None:
    """Show what a plugin is, its settings and defaults, its paper, and what it needs.

    Args:
        name: a plugin's name, as `unibound list` prints it.
    """
    from unibound.cli.flags import default_of, describe, flag_of
    from unibound.registry import did_you_mean, registries, settings_class

    found = [(kind, registry[name]) for kind, registry in registries().items() if name in registry]
    if not found:
        known = [name for registry in registries().values() for name in registry]
        raise UsageError(f"unknown plugin {name!r}; {did_you_mean(name, known)}")
    for kind, cls in found:
        text = printable(inspect.getdoc(cls) or "")
        about, _, source = text.partition("\nSource:")
        print(f"{name} ({kind}, from {registries()[kind].owner(name)})\n")
        print(about.partition("\nArgs:")[0].strip() + "\n")
        texts = describe(cls)
        for field in attrs.fields(settings_class(cls)):
            about = f"{default_of(field)}   {texts.get(field.name, '')}"
            print(f"  {flag_of(kind, field.name)} = {printable(about)}")
        if needs := getattr(cls, "needs", None):
            print(f"\nNeeds: {printable(str(needs))}")
        if source:
            print(f"\nSource: {' '.join(source.split())}")
        print()


def _print_json(document: object) -> None:
    import json

    print(json.dumps(document))
