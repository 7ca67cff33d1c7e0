"""`unibound new`: what it writes, what it refuses, and that what it writes passes as it is."""

import tomllib
from pathlib import Path

import installing
import pytest

FILES = {
    "pyproject.toml",
    ".github/workflows/ci.yml",
    "README.md",
    "my_plugin/__init__.py",
    "my_plugin/estimator.py",
    "my_plugin/prior.py",
    "tests/test_exam.py",
}


def test_writes_a_distribution(cli, tmp_path):
    result = cli("new", "My.plugin")
    assert result.code == 0, result
    folder = tmp_path / "My.plugin"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == FILES
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "My.plugin"
    assert set(project["entry-points"]["unibound"]) == {"my_plugin.estimator", "my_plugin.prior"}
    for path in filter(Path.is_file, folder.rglob("*")):
        assert "$" not in path.read_text(), path
    assert "unibound check My.plugin" in (folder / ".github" / "workflows" / "ci.yml").read_text()
    assert "unibound check My.plugin" in result.out


def test_into_a_folder(cli, tmp_path):
    (tmp_path / "inner" / "my-plugin").mkdir(parents=True)  # an empty one is as good as none
    assert cli("new", "my-plugin", "--dir", tmp_path / "inner").code == 0
    assert (tmp_path / "inner" / "my-plugin" / "pyproject.toml").exists()


def test_never_overwrites(cli, tmp_path):
    assert cli("new", "my-plugin").code == 0
    (tmp_path / "my-plugin" / "README.md").write_text("mine")
    result = cli("new", "my-plugin")
    assert result.code == 2
    assert "my-plugin exists already, and nothing is overwritten" in result.err
    assert (tmp_path / "my-plugin" / "README.md").read_text() == "mine"
    (tmp_path / "a-file").write_text("")
    assert "exists already" in cli("new", "a-file").err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("my plugin!", "only letters, digits and . _ - between them; try 'my-plugin'"),
        ("../escape", "try 'escape'"),
        ("...", "try 'my-plugin'"),
        ("-", "try 'my-plugin'"),
        ("2fast", "a package '2fast', which Python cannot import; try 'ub-2fast'"),
        ("class", "a package 'class', which Python cannot import"),
        ("json", "a package 'json', and there is one already"),
        ("unibound", "a package 'unibound', and there is one already"),
        ("Torch", "a package 'torch', and there is one already"),
    ],
)
def test_names_that_cannot_be(cli, tmp_path, name, words):
    result = cli("new", name) if name != "-" else cli("new", "--", name)
    assert result.code == 2, result
    assert words in result.err
    assert list(tmp_path.iterdir()) == []


def test_no_such_folder(cli):
    result = cli("new", "my-plugin", "--dir", "nowhere")
    assert result.code == 2
    assert "--dir nowhere is not an existing folder" in result.err


def test_holds_every_law(cli):
    """Without being installed: the whole package, as it lies here."""
    cli("new", "as-it-lies", "--dir", ".")
    for module in ("estimator", "prior"):
        result = cli("check", f"as-it-lies/as_it_lies/{module}.py")
        assert result.code == 0, result
        assert result.out.rstrip().endswith(" 0 failed")


@pytest.mark.parametrize("kind", ["model", "likelihood", "transition"])
def test_each_kind_holds_every_law(cli, kind):
    """The same for a skeleton of one kind alone."""
    said = cli("new", f"a-{kind}", "--kind", kind)
    assert f"unibound check a-{kind}" in said.out
    pages = [path.name for path in Path(f"a-{kind}", f"a_{kind}").iterdir()]
    assert sorted(pages) == ["__init__.py", f"{kind}.py"]
    result = cli("check", f"a-{kind}/a_{kind}/{kind}.py")
    assert result.code == 0, result
    assert result.out.rstrip().endswith(" 0 failed")


def test_a_data_set_has_tests_of_its_own(cli):
    said = cli("new", "a-data-set", "--kind", "data_set")
    assert said.code == 0, said
    assert "check" not in said.out
    assert [path.name for path in Path("a-data-set/tests").iterdir()] == ["test_data_set.py"]
    assert "unibound check" not in Path("a-data-set/.github/workflows/ci.yml").read_text()
    told = cli("run", "--data", "a-data-set/a_data_set/data_set.py:Bars", "--data.size", 3, "--dry-run")
    assert "size = 3" in told.out, told
    assert cli("new", "another", "--kind", "partition").code == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["data_set", "transition"])
def test_each_kind_installs_and_passes(cli, tmp_path, kind):
    cli("new", "my-plugin", "--kind", kind)
    seen = installing.install(tmp_path / "my-plugin", tmp_path / "site")
    tested = installing.pytest(seen, tmp_path / "my-plugin")
    assert tested.returncode == 0, tested.stdout


@pytest.mark.slow
def test_installs_and_passes_as_it_is(cli, tmp_path):
    cli("new", "my-plugin")
    seen = installing.install(tmp_path / "my-plugin", tmp_path / "site")
    tested = installing.pytest(seen, tmp_path / "my-plugin")
    assert tested.returncode == 0, tested.stdout
    assert "3 passed" in tested.stdout
    checked = installing.unibound(seen, "check", "my-plugin")
    assert checked.returncode == 0, checked
    assert "estimator my_plugin_loo" in checked.stdout
    assert "prior my_plugin_mixture" in checked.stdout
    words = ["--epochs", 1, "--estimator", "my_plugin_loo", "--prior", "my_plugin_mixture"]
    trained = installing.unibound(seen, "run", *words, "--prior.num-components", 3, "--num-particles", 5)
    assert trained.returncode == 0, trained.stderr
    assert "test NLL" in trained.stdout
