"""The commands about plugins: what there is, what it is, whether it is right, and how to begin one."""

import inspect
import shutil
import sys
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal

import attrs
from cyclopts import Parameter

from unibound.cli.catalog import Entry, entries
from unibound.errors import UsageError
from unibound.hookspecs import OWN_DISTRIBUTION, printable

Kind = Literal["estimator", "prior", "model", "likelihood", "data_set", "transition"]


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
    found = entries()
    if json:
        _print_json([{"kind": one.kind, "name": one.name, "about": one.about, "from": one.owner} for one in found])
        return
    print("\n".join(_listed(found, shutil.get_terminal_size().columns)))


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


def new(name: str, *, kind: Kind | None = None, dir: Path = Path(".")) -> None:
    """Write the skeleton of a plugin distribution, and tests that sit what it registers through the exam.

    Args:
        name: of the distribution, and of the new folder.
        kind: of the plugin it begins with; by default there are two, an estimator and a prior.
        dir: where the folder is made.
    """
    from unibound.cli import skeleton

    folder, commands = skeleton.new(name, dir, ("estimator", "prior") if kind is None else (kind,))
    print(f"{folder} is ready; next:\n")
    print("\n".join(f"    {command}" for command in commands))


def show(name: str) -> None:
    """Show what a plugin is, its settings and defaults, its paper, and what it needs; or what a recipe says.

    Args:
        name: a plugin's name, as `unibound list` prints it, or that of a recipe, as `unibound list recipes` does.
    """
    from unibound.settings.recipes import recipes

    if name in recipes():
        print(recipes()[name].read_text(encoding="utf-8"), end="")
        return
    from unibound.cli.flags import default_of, describe, flag_of
    from unibound.registry import did_you_mean, registries, settings_class

    found = [(kind, registry[name]) for kind, registry in registries().items() if name in registry]
    if not found:
        known = [*(name for registry in registries().values() for name in registry), *recipes()]
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


def _listed(found: list[Entry], width: int) -> Iterator[str]:
    """Every plugin by kind, in lines of a width; where one comes from is said of those that are not our own."""
    for kind, grouped in groupby(found, lambda one: one.kind):
        some = list(grouped)
        room = max(len(one.name) for one in some) + 4
        yield f"{kind.replace('_', ' ')}s"
        for one in some:
            origin = "" if one.owner == OWN_DISTRIBUTION else f" (from {one.owner})"
            name = f"  {printable(one.name)}".ljust(room)
            yield textwrap.fill(
                printable(one.about) + printable(origin),
                max(width, room + 20),
                initial_indent=name,
                subsequent_indent=" " * room,
                break_long_words=False,
                break_on_hyphens=False,
            )


def _print_json(document: object) -> None:
    import json

    print(json.dumps(document))
