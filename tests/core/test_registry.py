"""One door for everybody: what it lets in, and what it says to the others."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from unibound import Estimator, PluginError, UsageError, hookspecs
from unibound.guests import GLOBALS
from unibound.registry import KINDS, Registry, did_you_mean, load, settings_class

GOOD = """
import attrs
from unibound import Estimator, hookimpl

@attrs.frozen
class Mine(Estimator):
    scale: float = 1.0

    def __call__(self, joint, x):
        raise AssertionError

@hookimpl
def register_estimators(register):
    register("{name}", Mine)
"""


@pytest.fixture
def point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a module, and make the entry point of a distribution that names it."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def make(text: str, owner: str = "stranger") -> EntryPoint:
        module = f"plugin_{len(made)}_of_{owner}"
        (tmp_path / f"{module}.py").write_text(text)
        made.append(module)
        point = EntryPoint(f"estimators.{module}", module, hookspecs.GROUP)
        # An entry point of an installed distribution knows it; there is no public way to say so.
        vars(point).update(dist=SimpleNamespace(name=owner))
        return point

    yield make
    for module in made:
        sys.modules.pop(module, None)


def test_a_module_with_a_hook_is_a_plugin(point: Any) -> None:
    registries = load([point(GOOD.format(name="mine"))])
    assert registries.keys() == KINDS.keys()
    registry = registries["estimator"]
    assert list(registry) == ["mine"]
    assert registry["mine"].__name__ == "Mine"
    assert registry.owner("mine") == "stranger"
    assert registry.name_of(registry["mine"]) == "mine"


def test_one_module_may_register_several_kinds(point: Any) -> None:
    more = """
from unibound import DataSet

@attrs.frozen
class Data(DataSet):
    def load(self): raise AssertionError

@hookimpl
def register_data_sets(register):
    register("data", Data)
    register("same", Data)
"""
    registries = load([point(GOOD.format(name="mine") + more)])
    assert list(registries["data_set"]) == ["data", "same"]
    assert list(registries["estimator"]) == ["mine"]


def test_clash_of_strangers_keeps_the_first_and_names_both(point: Any, capsys: pytest.CaptureFixture[str]) -> None:
    registries = load([point(GOOD.format(name="mine"), "one"), point(GOOD.format(name="mine"), "two")])
    assert registries["estimator"].owner("mine") == "one"
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("unibound: left out: two and one both register the estimator 'mine'; rename one")


def test_stranger_cannot_replace_a_built_in(point: Any, capsys: pytest.CaptureFixture[str]) -> None:
    registries = load([point(GOOD.format(name="mine"), "aardvark"), point(GOOD.format(name="mine"), "unibound")])
    assert registries["estimator"].owner("mine") == "unibound"
    assert "aardvark and unibound both register the estimator 'mine'" in capsys.readouterr().err


TYPO = GOOD.format(name="mine").replace("register_estimators", "register_estimator")
SIGNATURE = GOOD.format(name="mine").replace("def register_estimators(register)", "def register_estimators(add)")
KIND = GOOD.format(name="mine").replace("register_estimators", "register_priors")
ABSTRACT = GOOD.format(name="mine").replace("__call__", "call")
HOOKLESS = GOOD.format(name="mine").replace("@hookimpl", "")
TWICE = GOOD.format(name="mine") + '    register("mine", Mine)\n'

BROKEN = {
    "raises at import": ("1 / 0", ["does not load: ZeroDivisionError: division by zero", "pip uninstall stranger"]),
    "exits at import": ("raise SystemExit(3)", ["does not load: SystemExit: 3"]),
    "syntax": ("def", ["does not load: SyntaxError"]),
    "missing module": ("import nowhere_to_be_found", ["does not load: ModuleNotFoundError"]),
    "typo": (TYPO, ["'register_estimator'", "did you mean 'register_estimators'?"]),
    "signature": (SIGNATURE, ["implements a hook wrongly", "'add'", "docs/hooks.md"]),
    "no hook": (HOOKLESS, ["implements no hook; mark one with @unibound.hookimpl"]),
    "wrong kind": (KIND, ["Mine", "as prior 'mine'", "concrete subclass of unibound.Prior"]),
    "abstract": (ABSTRACT, ["Mine", "as estimator 'mine'", "__call__"]),
    "no class": (GOOD.format(name="mine").replace(", Mine)", ", 3)"), ["registers 3 as estimator 'mine'"]),
    "no name": (GOOD.format(name="mine").replace('"mine"', "3"), ["3", "name"]),
    "hook raises": (GOOD.format(name="mine").replace('register("mine", Mine)', "1 / 0"), ["ZeroDivisionError"]),
    "no record": (GOOD.format(name="mine").replace("@attrs.frozen", ""), ["decorate it with @attrs.frozen"]),
    "setting called name": (GOOD.format(name="mine").replace("scale:", "name:"), ["cannot be called 'name'"]),
    "unknown annotation": (GOOD.format(name="mine").replace(": float", ": 'Nothing'"), ["'Nothing' is not defined"]),
    "raises what nobody catches": ("class Odd(BaseException): pass\nraise Odd('x')", ["does not load: Odd: x"]),
    "raises what cannot be said": (
        "class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd",
        ["does not load: Odd"],
    ),
    "leaves while it registers": (
        GOOD.format(name="mine").replace('register("mine", Mine)', "exit(3)"),
        ["SystemExit"],
    ),
    "name of capitals": (GOOD.format(name="Mine"), ["'Mine'", "small letters"]),
    "name that is markup": (GOOD.format(name="[red]"), ["'[red]'", "small letters"]),
    "name that is a flag": (GOOD.format(name="-x"), ["'-x'", "small letters"]),
    "name of two lines": (GOOD.format(name="a\\nb"), ["small letters"]),
    "default that cannot be shown": (
        GOOD.format(name="mine").replace("= 1.0", "= attrs.field(factory=lambda: 1 / 0)"),
        ["the default of 'scale' fails: ZeroDivisionError"],
    ),
    "twice": (TWICE, ["registers the estimator 'mine' twice"]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_plugin_of_a_stranger_is_reported_and_left_out(
    point: Any, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    text, parts = BROKEN[case]
    registries = load([point(text), point(GOOD.format(name="sound"))])
    assert list(registries["estimator"]) == ["sound"]
    assert not registries["prior"]
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    for part in ["unibound: left out: ", "stranger", *parts]:
        assert part in err


@pytest.mark.parametrize("case", BROKEN)
def test_broken_built_in_is_an_error(point: Any, case: str) -> None:
    text, parts = BROKEN[case]
    with pytest.raises(PluginError) as error:
        load([point(text, "unibound")])
    assert "\n" not in str(error.value)
    for part in ["unibound", *(part.replace("stranger", "unibound") for part in parts)]:
        assert part in str(error.value)


def test_all_plugins_of_a_module_enter_or_none(point: Any, capsys: pytest.CaptureFixture[str]) -> None:
    more = """
from unibound import DataSet

@attrs.frozen
class Data(DataSet):
    def load(self): raise AssertionError

@hookimpl
def register_data_sets(register):
    register("taken", Data)
"""
    first = point(GOOD.format(name="mine") + more, "one")
    registries = load([first, point(GOOD.format(name="other") + more, "two")])
    assert list(registries["estimator"]) == ["mine"]
    assert "two and one both register the data set 'taken'" in capsys.readouterr().err


def test_unknown_name_is_answered_with_a_guess() -> None:
    registry = Registry("partition_estimator", Estimator)
    with pytest.raises(UsageError, match=r"^unknown partition estimator 'x'; there are none$"):
        registry["x"]
    assert did_you_mean("vimc", ["sgvb", "vimco"]) == "did you mean 'vimco'?"
    assert did_you_mean("zzz", ["sgvb", "vimco"]) == "there are: sgvb, vimco"


def test_settings_are_a_record_or_keyword_parameters() -> None:
    @attrs.frozen
    class Record:
        size: int = 3

    class Module:
        """Something with parameters."""

        def __init__(self, shape: tuple[int, ...], *, size: int = 3, name: "str" = "a") -> None: ...

    assert settings_class(Record) is Record
    made = settings_class(Module)
    assert attrs.asdict(made()) == {"size": 3, "name": "a"}
    assert [field.type for field in attrs.fields(made)] == [int, str]
    assert settings_class(Module) is made


def test_annotations_may_be_text(point: Any) -> None:
    registries = load([point("from __future__ import annotations\n" + GOOD.format(name="mine"))])
    assert attrs.fields(settings_class(registries["estimator"]["mine"])).scale.type is float


CHANGES = {
    "torch.set_default_dtype(torch.float64)": "the default dtype",
    "torch.set_default_device('meta')": "the default device",
    "torch.set_num_threads(torch.get_num_threads() + 1)": "the number of threads",
    "torch.set_grad_enabled(False)": "whether gradients are kept",
    "torch.use_deterministic_algorithms(True)": "whether torch is deterministic",
    "torch.manual_seed(torch.initial_seed() + 1)": "the random numbers",
    "torch.rand(3)": "the random numbers",
    "torch.set_float32_matmul_precision('medium')": "the precision of products",
    "Some = torch.distributions.Distribution; Some.set_default_validate_args(not Some._validate_args)": (
        "the checks of distributions"
    ),
}


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_what_a_stranger_changes_for_everybody_is_put_back(
    point: Any, capsys: pytest.CaptureFixture[str], change: str, broken: bool
) -> None:
    before = {name: get() for name, (get, _) in GLOBALS.items()}
    load([point(f"import torch\n{change}\n{'1 / 0' if broken else ''}\n{GOOD.format(name='mine')}")])
    assert {name: get() for name, (get, _) in GLOBALS.items()} == before
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert ("left out" if broken else f"of 'stranger' changes {CHANGES[change]}, which was put back") in err


def test_what_a_stranger_prints_is_no_part_of_what_a_command_says(
    point: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    load([point("import sys\nprint('hello \\x1b[31m')\nprint(1, file=sys.stderr)\n" + GOOD.format(name="mine"))])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "prints 'hello" in captured.err
    assert "\x1b" not in captured.err


def test_a_variable_chooses_whose_plugins_there_are(point: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    every = [point(GOOD.format(name=name), name) for name in ("one", "two_b", "unibound")]
    monkeypatch.setattr(hookspecs, "entry_points", lambda group: every)
    for chosen, names in {None: every, "": every[2:], "one": [every[0], every[2]], " Two.B,": every[1:]}.items():
        monkeypatch.delenv(hookspecs.CHOSEN, raising=False)
        if chosen is not None:
            monkeypatch.setenv(hookspecs.CHOSEN, chosen)
        assert hookspecs.points() == names
    monkeypatch.setenv(hookspecs.CHOSEN, "one,three")
    with pytest.raises(UsageError, match="UNIBOUND_PLUGINS names three, which has no plugins"):
        hookspecs.points()
