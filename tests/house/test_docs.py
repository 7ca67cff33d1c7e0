"""The documents name what there is, and their examples run."""

import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import attrs
import pytest

from unibound import hookspecs, registries

ROOT = Path(__file__).parents[2]
HOOKS = (ROOT / "docs" / "hooks.md").read_text()


@pytest.mark.parametrize("name", [name for name in vars(hookspecs) if name.startswith("register_")])
def test_hooks_page_names_every_hook_with_its_signature(name: str) -> None:
    hook = getattr(hookspecs, name)
    signature = next(line for line in inspect.getsource(hook).splitlines() if line.startswith("def "))
    assert signature.removesuffix(":") in HOOKS


def test_hooks_page_names_no_other_hook() -> None:
    named = set(re.findall(r"def (register_\w+)\(", HOOKS))
    assert named == {name for name in vars(hookspecs) if name.startswith("register_")}


def examples() -> list[Any]:
    """Every block of Python in the documents that readers copy from."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text()
        for block in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text[: block.start()].count("\n") + 2
            found.append(pytest.param(block[1], id=f"{page.name}:{line}"))
    return found


@pytest.mark.parametrize("code", examples())
def test_examples_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(textwrap.dedent(code), "example", "exec"), names)
    for kind, registry in registries().items():
        register = names.get(f"register_{kind}s")
        if register is not None:
            entered: dict[str, type] = {}
            register(register=entered.__setitem__)
            assert entered
            assert all(issubclass(cls, registry.base) and not inspect.isabstract(cls) for cls in entered.values())


@pytest.mark.parametrize("kind", registries())
def test_every_plugin_says_what_it_is_and_what_its_settings_mean(kind: str) -> None:
    from unibound.cli.flags import describe
    from unibound.registry import settings_class

    for name, cls in registries()[kind].items():
        where = f"{kind} {name}"
        assert (cls.__doc__ or "").partition("\n")[0].rstrip().endswith((".", ":")), (
            f"{where}: first line of the docstring"
        )
        undocumented = {field.name for field in attrs.fields(settings_class(cls))} - describe(cls).keys()
        assert not undocumented, f"{where}: Args of the docstring lack {undocumented}"
