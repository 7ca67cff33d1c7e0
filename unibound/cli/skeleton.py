"""Write the skeleton of a distribution with plugins: complete, correct, and ready to be changed."""

import importlib.util
import keyword
import re
import sys
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from unibound.cli.catalog import entries
from unibound.errors import UsageError

SUFFIX = ".in"


def new(name: str, parent: Path) -> tuple[Path, str]:
    """Write a distribution of a given name into a new folder of that name.

    Returns:
        The folder, and the name of its package.
    Raises:
        UsageError: a name that cannot be one, or is taken, or a folder that holds something already.
    """
    package = package_name(name)
    folder = parent / name
    if not parent.is_dir():
        raise UsageError(f"--dir {parent} is not an existing folder; make it first")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already, and nothing is overwritten; choose another name or --dir")
    try:
        _write(files("unibound.cli") / "templates" / "plugin", folder, {"name": name, "package": package})
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}; choose another --dir") from error
    return folder, package


def package_name(name: str) -> str:
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
    if clash := sorted(taken & {f"{package}_loo", f"{package}_mixture"}):
        raise UsageError(f"{name!r} would make a plugin {clash[0]!r}, and there is one already; choose another name")
    return package


def _write(source: Traversable, target: Path, values: dict[str, str]) -> None:
    """Write a folder of templates; a folder or file called `package` gets the package's name."""
    target.mkdir(exist_ok=True)
    for entry in source.iterdir():
        if entry.is_dir():
            _write(entry, target / (values["package"] if entry.name == "package" else entry.name), values)
        elif entry.name.endswith(SUFFIX):
            text = Template(entry.read_text(encoding="utf-8")).substitute(values)
            (target / entry.name.removesuffix(SUFFIX)).write_text(text, encoding="utf-8")
