"""The built-in plugins. Each file is one plugin, enters by an entry point, and can be deleted alone."""

import ast
import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lazily(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package whose pages are imported when a class of theirs is asked for.

    Which class is on which page is what the package imports under TYPE_CHECKING: said once, to people, type checkers
    and Python. A page that was deleted takes its own names away, and no others.

    Args:
        package: its `__name__`.
        file: its `__file__`.
    """

    @functools.cache
    def pages() -> dict[str, str]:
        nodes = ast.walk(ast.parse(Path(file).read_text(encoding="utf-8")))
        imports = [(str(node.module), node.names) for node in nodes if isinstance(node, ast.ImportFrom)]
        own = [(page, names) for page, names in imports if page.startswith(f"{package}.")]
        return {name.name: page for page, names in own for name in names}

    def get(name: str) -> Any:
        if (page := pages().get(name)) is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(page), name)
        except ModuleNotFoundError as error:
            if error.name != page:
                raise
            raise AttributeError(f"module {package!r} has no attribute {name!r}, since there is no {page}") from None

    return get, lambda: sorted(pages())
