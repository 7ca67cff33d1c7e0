"""Write the pages of the documentation site into build/docs: those of this folder, and those that the code makes.

    python docs/pages.py [--without-matrix] [--without-outputs]

Tutorials are executed, which takes a minute, and shown with what they print and draw; see `notebooks`. The zoo has a
page per plugin: its docstring, its settings, its paper, and what it goes with, which is found out by configuring every
combination, and takes a minute. The reference has a page per module that defines public names.
`make site` calls this, then zensical.
"""

import inspect
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import attrs

import unibound
from unibound.cli.flags import default_of, describe, flag_of
from unibound.cli.matrix import Cell, cells
from unibound.registry import registries, settings_class

DOCS = Path(__file__).parent
TARGET = DOCS.parent / "build" / "docs"
MORE = ("distributions", "draws", "kernels", "support", "testing", "weights")
"""Modules with public names that `unibound` itself does not have."""


def zoo(target: Path, found: list[Cell]) -> None:
    """A page per plugin, and one that lists them."""
    (target / "zoo").mkdir()
    lines = ["# The zoo", "", "Every plugin that comes with the package, by kind."]
    for kind, registry in registries().items():
        lines += ["", f"## {registry.label.capitalize()}s", ""]
        for name, cls in registry.items():
            text = plugin(kind, name, cls, [cell for cell in found if getattr(cell, kind, None) == name])
            (target / "zoo" / f"{kind}-{name}.md").write_text(text, encoding="utf-8")
            lines.append(f"- [`{name}`]({kind}-{name}.md): {(inspect.getdoc(cls) or '').partition(chr(10))[0]}")
    (target / "zoo" / "index.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def plugin(kind: str, name: str, cls: type, own: Iterable[Cell]) -> str:
    """The page of a plugin."""
    text, _, source = (inspect.getdoc(cls) or "").partition("\nSource:")
    about = text.partition("\nArgs:")[0].strip()
    lines = [f"# `{name}`", "", f"{kind.replace('_', ' ').capitalize()}, `{cls.__module__}.{cls.__name__}`", "", about]
    texts, fields = describe(cls), attrs.fields(settings_class(cls))
    if fields:
        lines += ["", "## Settings", "", "| flag | default | |", "| --- | --- | --- |"]
        lines += [
            f"| `{flag_of(kind, one.name)}` | `{default_of(one)}` | {cell(texts.get(one.name, ''))} |" for one in fields
        ]
    if needs := getattr(cls, "needs", None):
        lines += ["", "## Needs", "", str(needs)]
    lines += goes_with(kind, list(own))
    if source:
        lines += ["", "## Source", "", " ".join(source.split())]
    return "\n".join(lines) + "\n"


def goes_with(kind: str, own: list[Cell]) -> list[str]:
    """What can be trained with it, a row for each model or, of a model, for each prior."""
    row, inner = (
        ("prior", "estimator") if kind == "model" else ("model", "prior" if kind == "estimator" else "estimator")
    )
    if not own:
        return []
    lines = ["", "## Goes with", "", f"| {row} | {inner}s |", "| --- | --- |"]
    for name, some in groupby(sorted(own, key=lambda one: getattr(one, row)), lambda one: getattr(one, row)):
        fits = [f"`{getattr(one, inner)}`" for one in some if one.reason is None]
        lines.append(f"| `{name}` | {', '.join(fits) or 'none'} |")
    return lines


def cell(text: str) -> str:
    """Text in a table."""
    return text.replace("|", "\\|")


def reference(target: Path) -> None:
    """A page per module that defines public names, made by mkdocstrings."""
    (target / "api").mkdir()
    names: dict[str, list[str]] = defaultdict(list)
    for name, module in unibound._modules().items():
        if name in unibound.__all__:
            names[module].append(name)
    lines = ["# Reference", "", "What `import unibound` gives, by the module that defines it.", ""]
    for module, own in sorted(names.items()):
        page = "\n".join(f"::: {module}.{name}\n" for name in own)
        (target / "api" / f"{module}.md").write_text(f"# {module}\n\n{page}", encoding="utf-8")
        lines.append(f"- [{module}]({module}.md): {', '.join(f'`{name}`' for name in own)}")
    lines += ["", "And what plugins may build with:", ""]
    for name in MORE:
        (target / "api" / f"unibound.{name}.md").write_text(
            f"# unibound.{name}\n\n::: unibound.{name}\n", encoding="utf-8"
        )
        lines.append(f"- [unibound.{name}](unibound.{name}.md)")
    (target / "api" / "index.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(target: Path = TARGET, *, matrix: bool = True, outputs: bool = True) -> None:
    """Write all pages."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(DOCS, target, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    if outputs:
        import notebooks  # and with it what runs them, which only the site needs

        notebooks.write(target / "tutorials")
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        shutil.copy(DOCS.parent / name, target / name.lower())
    zoo(target, list(cells()) if matrix else [])
    reference(target)


if __name__ == "__main__":
    main(matrix="--without-matrix" not in sys.argv[1:], outputs="--without-outputs" not in sys.argv[1:])
