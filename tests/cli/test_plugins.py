"""`unibound list` and `unibound show`: what they say of plugins is what `run` makes of them."""

import importlib.metadata
import inspect
import json
import re
import sys
from pathlib import Path

import attrs
import pytest
from running import refused

from unibound import registries
from unibound.cli import app
from unibound.cli.catalog import Entry, entries
from unibound.registry import settings_class

PLUGIN = """
import attrs
from unibound import Likelihood, hookimpl
from unibound_plugins.likelihoods.bernoulli import Bernoulli


@attrs.frozen
class Other(Bernoulli):
    \"\"\"Bits once
    more.\"\"\"


@hookimpl
def register_likelihoods(register):
    register("other", Other)
"""


def registered() -> list[Entry]:
    return [
        Entry(kind, name, (inspect.getdoc(cls) or "").partition("\n")[0], registry.owner(name))
        for kind, registry in registries().items()
        for name, cls in registry.items()
    ]


def test_what_is_listed_is_what_is_registered(cli) -> None:
    assert entries() == registered()
    document = json.loads(cli("list", "--json").out)
    assert [tuple(row.values()) for row in document] == [attrs.astuple(entry) for entry in registered()]
    assert document[0].keys() == {"kind", "name", "about", "from"}


def test_a_strangers_plugin_is_read_too(distribution) -> None:
    distribution("stranger", "readable", PLUGIN)
    found = entries()
    assert Entry("likelihood", "other", "Bits once", "stranger") in found
    assert "readable" not in sys.modules
    assert found == registered()


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("in_a_loop", '    register("other", Other)', '    for name in ("a", "b"):\n        register(name, Other)'),
        ("by_a_constant", '    register("other", Other)', "    register(hookimpl.project_name, Other)"),
        ("of_another_module", 'register("other", Other)', 'register("other", Bernoulli)'),
        ("without_docstring", '    """Bits once\n    more."""', "    pass"),
        ("under_another_name", "@hookimpl", "mark = hookimpl\n\n\n@mark"),
        ("with_an_option", "@hookimpl", "@hookimpl(tryfirst=True)"),
        ("under_a_condition", "@attrs.frozen", "if True:\n    Bernoulli = Bernoulli\n\n\n@attrs.frozen"),
    ],
)
def test_what_cannot_be_read_is_imported(distribution, module: str, old: str, new: str) -> None:
    assert old in PLUGIN
    distribution("stranger", module, PLUGIN.replace(old, new))
    assert entries() == registered()
    assert module in sys.modules
    assert any(entry.owner == "stranger" for entry in entries())


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("needs_something", "import attrs", "import attrs\nimport nothing_like_this"),
        ("raises", "import attrs", 'import attrs\nraise RuntimeError("no")'),
        ("typo", "class Other(", "class Other(("),
        ("unknown_hook", "register_likelihoods", "register_likelyhoods"),
        ("takes_a_name", '"other"', '"gaussian"'),
    ],
)
def test_what_does_not_load_is_left_out(cli, distribution, module: str, old: str, new: str) -> None:
    distribution("stranger", module, PLUGIN.replace(old, new))
    result = cli("list")
    assert "unibound: left out: " in result.err
    assert "stranger" in result.err
    assert "stranger" not in result.out
    assert entries() == registered()


def test_no_plugin_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unibound.hookspecs.entry_points", lambda group: importlib.metadata.EntryPoints())
    assert entries() == []


def made(*words: str) -> set[str]:
    """The flags that a call of `unibound run` can be parsed by."""
    arguments = app.parser(["run", *words])["run"].assemble_argument_collection()
    return {name for argument in arguments for name in argument.names}


@pytest.fixture(scope="module")
def flags() -> set[str]:
    """Every flag of `unibound run`."""
    return made("--help")


@pytest.mark.parametrize("wrong", ["--prio", "--model.num-latent=3", "-h", "--estimator.num_particle"])
def test_all_flags_are_there_to_advise_whoever_typed_none_of_them(flags: set[str], wrong: str) -> None:
    assert made("--epochs", "1", wrong) == flags


def test_a_call_is_parsed_by_the_flags_that_it_names(flags: set[str]) -> None:
    few = made("--model.num-latents=3", "--run-dir", "run", "--epochs", "2")
    assert few >= {"--model.num-latents", "--run-dir", "--epochs"}
    assert few < flags
    assert "--prior" not in few


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, registry in registries().items() for name in registry]
)
def test_run_takes_every_flag_that_show_prints(cli, flags: set[str], kind: str, name: str) -> None:
    result = cli("show", name)
    (shown,) = re.findall(rf"^{name} \({kind}, from unibound\)\n(.*?)(?=^\S+ \(\w+, from |\Z)", result.out, re.M | re.S)
    printed = re.findall(r"^  (--\S+) = ", shown, re.M)
    assert len(printed) == len(attrs.fields(settings_class(registries()[kind][name])))
    assert flags.issuperset(printed)


def test_what_show_prints_of_a_data_set_is_taken(cli) -> None:
    assert "--data.folder = None" in cli("show", "mnist").out
    refused(cli("run", "--data", "mnist", "--data.folder", "nowhere"), "nowhere")


def test_help_shows_what_each_call_asks_for(cli) -> None:
    shown = {name: cli("run", "--estimator", name, "--help").out for name in ("vimco", "sgvb")}
    assert "Estimator vimco" in shown["vimco"]
    assert "--estimator.baseline" in shown["vimco"]
    assert "--estimator.analytic-kl" not in shown["vimco"]
    assert "Estimator sgvb" in shown["sgvb"]
    assert "--estimator.analytic-kl" in shown["sgvb"]
    assert "--estimator.baseline" not in shown["sgvb"]
    assert "Estimator vimco" in cli("run", "--help").out


def test_every_flag_of_data_is_in_a_panel(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = {name: cli("run", "--data", name, "--help").out for name in registries()["data_set"]}
    shown |= {word: cli("run", "--data", word, "--help").out for word in ("x.npz", "hf:me/mine", "torchvision:MNIST")}
    for name, cls in registries()["data_set"].items():
        for field in attrs.fields(cls):
            assert f"--data.{field.name.replace('_', '-')} " in shown[name], (name, field.name)
    assert "--data.missing " in shown["x.npz"]
    assert "--data.subset " not in shown["x.npz"]
    for name in ("hf:me/mine", "torchvision:MNIST"):
        assert "--data.missing" not in shown[name]
        assert all(f"--data.{one} " in shown[name] for one in ("subset", "column"))
    without = cli("run", "--help").out
    assert all(f"--data.{one} " in without for one in ("missing", "subset", "column"))


@pytest.mark.parametrize("name", ["", *app.COMMANDS])
def test_help_ends_with_the_page_that_says_more(cli, name: str) -> None:
    said = cli(*[name] * bool(name), "--help").out.rstrip().splitlines()[-1]
    page = said.removeprefix("More in the documentation: ")
    assert page == f"docs/{app.PAGES.get(name, 'index')}.md"
    assert (Path(__file__).parents[2] / page).exists()


def test_without_arguments_the_words_are_those_of_the_process(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["unibound", "run", "--prior=gaussian", "--help"])
    app.main()
    assert "Prior gaussian" in capsys.readouterr().out


def test_completion_knows_the_settings_of_every_plugin(cli, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli("--install-completion", "--shell", "bash", "--output", "script").code == 0
    script = (tmp_path / "script").read_text()
    for flag in ("--estimator.baseline", "--estimator.analytic-kl", "--partition.max-bits", "--prior.num-hidden"):
        assert flag in script
    assert "--install-completion" in cli("--help").out
