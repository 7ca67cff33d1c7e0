"""Sit the plugins of a distribution, a package or a file through the exam, and print law by law what came of it."""

import importlib
import importlib.util
import json
import pkgutil
import re
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points, packages_distributions
from itertools import groupby
from pathlib import Path
from types import ModuleType

import attrs
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unibound.errors import PluginError, UsageError
from unibound.hookspecs import GROUP
from unibound.registry import KINDS, Registry, did_you_mean, enter, registries
from unibound.testing import EXAMS, Verdict, variants

POINT = "entry point"
READ = "see docs/writing-a-plugin.md"


@attrs.frozen
class Finding:
    """What came of one law for one plugin, in one variant of its settings."""

    kind: str
    name: str
    verdict: Verdict


def check(target: str, *, as_json: bool = False) -> bool:
    """Examine every plugin of a distribution, package or file, and print the findings; whether all laws held.

    Raises:
        UsageError: there is no such thing, or it registers nothing that has an exam.
    """
    points = find(target)
    findings = _print_json(target, examine(points)) if as_json else _print(examine(points))
    if all(finding.kind == POINT and finding.verdict.held for finding in findings):
        kinds = ", ".join(kind.replace("_", " ") for kind in EXAMS)
        raise UsageError(f"{target} registers nothing that has an exam; there is one for each {kinds}")
    return all(finding.verdict.held for finding in findings)


def find(target: str) -> list[EntryPoint]:
    """The entry points of a distribution, or what would be those of a package or file that is not installed."""
    found = list(entry_points(group=GROUP))
    named = [point for point in found if point.dist is not None and canonical(point.dist.name) == canonical(target)]
    named = named or [point for point in found if f"{point.module}.".startswith(f"{target}.")]
    if named:
        return named
    if _is_installed(target):
        raise UsageError(f"{target} registers nothing: it has no entry point of group {GROUP!r}; {READ}")
    modules = _modules(target, [point.dist.name for point in found if point.dist is not None])
    hooked = [module for module in modules if _has_hook(module)]
    if not hooked:
        raise UsageError(f"{target} registers nothing: it has no function marked with @unibound.hookimpl; {READ}")
    return [EntryPoint(module.__name__, module.__name__, GROUP) for module in hooked]


def examine(points: list[EntryPoint]) -> Iterator[Finding]:
    """Load each entry point, then judge what they register, in all variants of its settings."""
    found: dict[str, Registry] = {kind: Registry(kind, base) for kind, base in KINDS.items()}
    for point in points:
        yield Finding(POINT, point.name, _loads(point, found))
    for kind, exam in EXAMS.items():
        for name, cls in found[kind].items():
            for words, plugin in variants(cls).items():
                for verdict in exam.sit(plugin):
                    yield Finding(kind, f"{name} {words}".strip(), verdict)


def canonical(name: str) -> str:
    """The name of a distribution as indices compare it: case, dots, dashes and underscores are the same."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_installed(target: str) -> bool:
    """Whether this is a distribution, or a package that belongs to one."""
    distributions = {canonical(name) for names in packages_distributions().values() for name in names}
    return target.partition(".")[0] in packages_distributions() or canonical(target) in distributions


def _loads(point: EntryPoint, found: dict[str, Registry]) -> Verdict:
    own = {kind: Registry(kind, base) for kind, base in KINDS.items()}
    try:
        enter(point, own)
        for kind, registry in own.items():
            for name, cls in registry.items():
                known = registries()[kind]
                if point.dist is not None and name in known and known[name] is not cls:
                    raise PluginError(f"the {known.label} {name!r} is that of {known.owner(name)}; choose another name")
                found[kind].add(name, cls, registry.owner(name))
    except PluginError as error:
        return Verdict("loads", False, str(error))
    names = [f"{registry.label} {name}" for registry in own.values() for name in registry]
    return Verdict("loads", True, f"registers {', '.join(names)}" if names else "registers nothing")


def _modules(target: str, distributions: list[str]) -> Iterator[ModuleType]:
    """A file as a module, or a package that can be imported, with all its modules."""
    path = Path(target)
    try:
        if path.suffix == ".py" and path.is_file():
            yield _from_file(path)
            return
        sys.path.insert(0, "")  # as `python -m` does: what lies here can be imported
        try:
            module = importlib.import_module(target)
            yield module
            for info in pkgutil.walk_packages(getattr(module, "__path__", []), f"{target}."):
                yield importlib.import_module(info.name)
        finally:
            sys.path.remove("")
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{target}.".startswith(f"{error.name}."):
            raise UsageError(f"{target} does not import: {error}; install what it needs") from error
        known = did_you_mean(target, sorted(set(distributions)))
        raise UsageError(f"there is no distribution, package or file {target!r} with plugins; {known}") from error
    except Exception as error:
        raise UsageError(f"{target} does not import: {type(error).__name__}: {error}") from error


def _from_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _has_hook(module: ModuleType) -> bool:
    return any(
        hasattr(value, f"{GROUP}_impl") and getattr(value, "__module__", None) == module.__name__
        for value in vars(module).values()
    )


def _print(findings: Iterator[Finding]) -> list[Finding]:
    console, seen = Console(highlight=False), list[Finding]()
    for title, group in groupby(findings, _title):
        table = Table.grid(padding=(0, 2))
        for finding in group:
            seen.append(finding)
            law, held, detail = attrs.astuple(finding.verdict)
            mark = "[green]held[/]" if held else "[bold red]FAILED[/]"
            if held and detail.startswith("does not apply"):
                mark = "[dim]-[/]"
            what = finding.name if finding.kind == POINT else law.replace("_", " ")
            table.add_row("", mark, escape(what), escape(detail))
        console.print(f"[bold]{escape(title)}[/]")
        console.print(table)
    failed = sum(not finding.verdict.held for finding in seen)
    console.print(f"\n{len(seen) - failed} held, {failed} failed")
    return seen


def _title(finding: Finding) -> str:
    return f"{POINT}s" if finding.kind == POINT else f"{finding.kind.replace('_', ' ')} {finding.name}"


def _print_json(target: str, findings: Iterator[Finding]) -> list[Finding]:
    seen = list(findings)
    rows = [{"kind": one.kind, "name": one.name, **attrs.asdict(one.verdict)} for one in seen]
    print(json.dumps({"package": target, "failed": sum(not row["held"] for row in rows), "verdicts": rows}))
    return seen
