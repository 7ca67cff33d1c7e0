"""Which plugins are installed, read from their source: importing them, and torch with them, takes seconds.

Only what can be read without doubt is: modules of imports, constants, classes and functions, whose hooks do nothing
but `register("name", Class)`. One that is written otherwise, or needs what is not installed, has everything imported.
"""

import ast
import inspect
from collections.abc import Iterator
from importlib.abc import InspectLoader
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint
from importlib.util import find_spec

import attrs

from unibound import hookspecs

HOOKS = {name: name.removeprefix("register_").removesuffix("s") for name in vars(hookspecs) if name[:8] == "register"}
"""The kind of plugin that each hook registers."""


@attrs.frozen
class Entry:
    """A plugin that is installed.

    Args:
        kind, name: how it is registered.
        about: first line of its docstring.
        owner: the distribution it comes from.
    """

    kind: str
    name: str
    about: str
    owner: str


class _UnreadableError(Exception):
    """What is registered is only known once it is."""


def entries() -> list[Entry]:
    """Every plugin in `registries()`, kind by kind and in the order of names."""
    try:
        found = [entry for point in hookspecs.points() for entry in _read(point)]
        if len({(entry.kind, entry.name) for entry in found}) < len(found):
            raise _UnreadableError
    except _UnreadableError:
        return _imported()
    kinds = list(HOOKS.values())
    return sorted(found, key=lambda entry: (kinds.index(entry.kind), entry.name))


def _imported() -> list[Entry]:
    from unibound.registry import registries

    return [
        Entry(kind, name, (inspect.getdoc(cls) or "").partition("\n")[0], registry.owner(name))
        for kind, registry in registries().items()
        for name, cls in registry.items()
    ]


def _read(point: EntryPoint) -> Iterator[Entry]:
    """What the module of an entry point registers."""
    if point.attr or point.dist is None:
        raise _UnreadableError
    body = _statements(point.module)
    about = {node.name: ast.get_docstring(node) for node in body if isinstance(node, ast.ClassDef)}
    functions = [
        (node, list(map(ast.unparse, node.decorator_list))) for node in body if isinstance(node, ast.FunctionDef)
    ]
    hooks = [(node, marks) for node, marks in functions if "hookimpl" in " ".join(marks)]
    if not hooks:
        raise _UnreadableError
    for hook, marks in hooks:
        if hook.name not in HOOKS or marks != ["hookimpl"]:
            raise _UnreadableError
        for name, cls in map(_registered, hook.body):
            if not (text := about.get(cls)) or not hookspecs.NAME.fullmatch(name):
                raise _UnreadableError
            yield Entry(HOOKS[hook.name], name, text.partition("\n")[0], point.dist.name)


def _registered(statement: ast.stmt) -> tuple[str, str]:
    """Name and class of a call of `register`."""
    match statement:
        case ast.Expr(
            ast.Call(func=ast.Name(id="register"), args=[ast.Constant(str() as name), ast.Name(id=cls)], keywords=[])
        ):
            return name, cls
    raise _UnreadableError


def _statements(module: str) -> list[ast.stmt]:
    """The statements of a module, where they are such that only an import can fail, and none will."""
    try:
        body = ast.parse(_source(module)).body
    except SyntaxError as error:
        raise _UnreadableError from error
    harmless = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.ClassDef, ast.FunctionDef)
    for node in body:
        match node:
            case ast.Expr(ast.Constant(str())):
                names = []
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(module=str() as name, level=0):
                names = [name]
            case _ if isinstance(node, harmless):
                names = []
            case _:
                raise _UnreadableError
        if any(find_spec(name.partition(".")[0]) is None for name in names):
            raise _UnreadableError
    return body


def _source(module: str) -> str:
    """The text of a module, found without importing the packages it lies in."""
    root, *inner = module.split(".")
    spec = find_spec(root)
    for name in inner:
        if spec is None or spec.submodule_search_locations is None:
            raise _UnreadableError
        spec = PathFinder.find_spec(f"{spec.name}.{name}", spec.submodule_search_locations)
    text = spec.loader.get_source(module) if spec is not None and isinstance(spec.loader, InspectLoader) else None
    if text is None:
        raise _UnreadableError
    return text
