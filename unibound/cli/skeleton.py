"""Write the skeleton of a distribution with plugins: complete, correct, and ready to be changed."""

import importlib.util
import keyword
import re
import sys
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

import attrs

from unibound.cli.catalog import entries
from unibound.errors import UsageError

SUFFIX = ".in"


@attrs.frozen
class Begun:
    """A plugin to begin with.

    Args:
        about: what it is.
        name: how it is registered, after the package.
        flags: of a run that uses it, which its full name is put into.
    """

    about: str
    name: str
    flags: str


KINDS = {
    "estimator": Begun("an estimator", "loo", "--estimator {}"),
    "prior": Begun("a prior", "mixture", "--prior {}"),
    "model": Begun("a model", "linear", "--model {}"),
    "likelihood": Begun("a likelihood", "counts", "--likelihood {} --data counts.npz"),
    "data_set": Begun("a data set", "bars", "--data {}"),
    "transition": Begun("a transition", "walk", "--transition {} --prior gaussian_rbm --estimator sgvb"),
}
"""What a skeleton may hold, by kind. A data set has no exam, and comes with tests of its own."""
NO_EXAM = "data_set"


def new(name: str, parent: Path, kinds: Sequence[str]) -> tuple[Path, list[str]]:
    """Write a distribution of a given name, with a plugin of each kind, into a new folder of that name.

    Returns:
        The folder, and the commands that come next.
    Raises:
        UsageError: a name that cannot be one, or is taken, or a folder that holds something already.
    """
    package, chosen = package_name(name, kinds), [KINDS[kind] for kind in kinds]
    folder, examined = parent / name, [kind for kind in kinds if kind != NO_EXAM]
    if not parent.is_dir():
        raise UsageError(f"--dir {parent} is not an existing folder; make it first")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already, and nothing is overwritten; choose another name or --dir")
    check = f"unibound check {name}" if examined else ""
    flags = " ".join(one.flags.format(f"{package}_{one.name}") for one in chosen)
    values = {
        "name": name,
        "package": package,
        "about": " and ".join(one.about for one in chosen),
        "points": "\n".join(f'"{package}.{kind}" = "{package}.{kind}"' for kind in kinds),
        "pages": " and ".join(f"`{package}/{kind}.py`" for kind in kinds),
        "examined": ", ".join(f'"{package}_{KINDS[kind].name}"' for kind in examined),
        "flags": flags,
        "check": f"\n    {check}  # the exam, law by law, with the numbers" if check else "",
        "step": f"\n      - run: {check}" if check else "",
    }
    source = files("unibound.cli") / "templates"
    tests = [*(["test_exam"] if examined else []), *(["test_data_set"] if NO_EXAM in kinds else [])]
    try:
        _write(source / "plugin", folder, values)
        for page in kinds:
            _fill(source / "kinds" / f"{page}.py{SUFFIX}", folder / package / f"{page}.py", values)
        (folder / "tests").mkdir(exist_ok=True)
        for page in tests:
            _fill(source / "tests" / f"{page}.py{SUFFIX}", folder / "tests" / f"{page}.py", values)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}; choose another --dir") from error
    commands = [f"pip install -e '{folder}[test]'", f"pytest {folder}", check, f"unibound run {flags}"]
    return folder, [command for command in commands if command]


def package_name(name: str, kinds: Sequence[str]) -> str:
    """The package of a distribution: lower case, with underscores.

    Raises:
        UsageError: not a name a distribution can have, or one that would hide something else.
    """
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        cure = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "my-plugin"
        raise UsageError(
            f"{name!r} cannot be the name of a distribution: only letters, digits and . _ - between them; try {cure!r}"
        )
    package = re.sub(r"[-_.]+", "_", name).lower()
    if not package.isidentifier() or keyword.iskeyword(package):
        raise UsageError(f"{name!r} would make a package {package!r}, which Python cannot import; try 'ub-{name}'")
    if package in sys.stdlib_module_names or importlib.util.find_spec(package) is not None:
        raise UsageError(f"{name!r} would make a package {package!r}, and there is one already; try 'ub-{name}'")
    taken = {entry.name for entry in entries()}
    if clash := sorted(taken & {f"{package}_{KINDS[kind].name}" for kind in kinds}):
        raise UsageError(f"{name!r} would make a plugin {clash[0]!r}, and there is one already; choose another name")
    return package


def _write(source: Traversable, target: Path, values: dict[str, str]) -> None:
    """Write a folder of templates; a folder or file called `package` gets the package's name."""
    target.mkdir(exist_ok=True)
    for entry in source.iterdir():
        if entry.is_dir():
            _write(entry, target / (values["package"] if entry.name == "package" else entry.name), values)
        elif entry.name.endswith(SUFFIX):
            _fill(entry, target / entry.name.removesuffix(SUFFIX), values)


def _fill(template: Traversable, target: Path, values: dict[str, str]) -> None:
    """Write what a template becomes."""
    target.write_text(Template(template.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
