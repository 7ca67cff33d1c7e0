"""What is handed out: it holds what it needs, installs without the checkout, runs, and is typed for whoever uses it."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import attrs
import pytest

import unibound

ROOT = Path(__file__).parents[2]
RUN = "run --epochs 1 --prior.num-hidden 4 --model.num-latents 4 --num-particles 5 --partition.num-chains 4"
"""A run of a few seconds."""
SCRIPT = """
import unibound
from unibound_plugins.estimators import VIMCO
from unibound_plugins.priors import RBM

vimco: VIMCO = VIMCO(num_particles=5)
prior = RBM((8,), num_hidden=16)
run: unibound.Run = unibound.Run.open("run")
bound: float = run.evaluate("test").nll
"""
WRONG = {
    'VIMCO(num_particles="five")': "num_particles",
    "VIMCO(particles=5)": "particles",
    "RBM((8,), 16)": "positional",
    "unibound.Run.open(1.5)": "float",
    "run.evaluates()": "evaluates",
}
"""A mistake each, and a word of the complaint."""


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project
    assert project["dynamic"] == ["version"]
    for path in (ROOT / "CITATION.cff", ROOT / "constraints.txt", ROOT / ".ci" / "run"):
        assert unibound.__version__ not in path.read_text(), path


def test_both_packages_are_typed() -> None:
    assert (ROOT / "unibound" / "py.typed").exists()
    assert (ROOT / "plugins" / "unibound_plugins" / "py.typed").exists()


def test_the_hosted_checks_are_those_of_the_repository() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert "- run: bash .ci/run" in text
    claimed = [
        line.rpartition(" ")[2].strip('",')
        for line in (ROOT / "pyproject.toml").read_text().splitlines()
        if "Programming Language :: Python :: 3." in line
    ]
    assert all(f'"{version}"' in text for version in claimed)


@attrs.frozen
class Release:
    """What `python -m build` made, and an environment with nothing of ours but that.

    Args:
        wheel, sdist: the files.
        python: of the environment; torch and the rest are seen from the one that runs the tests.
        home: an empty folder to work in.
    """

    wheel: Path
    sdist: Path
    python: Path
    home: Path

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, without what the variables of whoever tests say."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("UNIBOUND_", "PYTHON"))}
        program, *rest = map(str, words)
        command = [self.python.with_name(program), *rest]
        return subprocess.run(command, cwd=self.home, env=kept, capture_output=True, text=True)


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Build a release from a copy of what is tracked, and install its wheel without a network."""
    folder = tmp_path_factory.mktemp("release")
    made = {"runs", "dist", "build", "site"}  # by whoever works in the checkout, at its top
    caches = shutil.ignore_patterns(".git", "__pycache__", ".venv", "venv", ".*_cache")

    def ignored(at: object, names: list[str]) -> set[str]:
        return caches(str(at), names) | (made if Path(str(at)) == ROOT else set())

    shutil.copytree(ROOT, folder / "copy", ignore=ignored)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "copy"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel], [sdist] = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    shutil.rmtree(folder / "copy")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel]
    subprocess.run(install, check=True, capture_output=True)
    [site] = (folder / "venv").glob("lib/*/site-packages")
    # In a folder that a .pth file names, other .pth files are not read: the checkout stays unseen.
    others = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "others.pth").write_text("\n".join(others) + "\n")
    (folder / "home").mkdir()
    return Release(wheel, sdist, python, folder / "home")


@pytest.mark.slow
def test_wheel_and_sdist_hold_what_they_must(release: Release) -> None:
    assert release.wheel.name.startswith(f"unibound-{unibound.__version__}-py3-none-any")
    held = set(zipfile.ZipFile(release.wheel).namelist())
    kept = {
        str(path.relative_to(root))
        for root, package in ((ROOT, "unibound"), (ROOT / "plugins", "unibound_plugins"))
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert kept - held == set()
    assert {name.partition("/")[0] for name in held - kept} == {f"unibound-{unibound.__version__}.dist-info"}
    with tarfile.open(release.sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md", "tests/conftest.py", "Makefile"} <= inside


@pytest.mark.slow
def test_runs_without_the_checkout(release: Release) -> None:
    where = release.run("python", "-c", "import unibound, unibound_plugins as u; print(unibound.__file__, u.__file__)")
    assert where.stdout.count(str(release.python.parents[1])) == 2, where
    assert release.run("unibound", "--version").stdout.strip() == unibound.__version__
    done = release.run("unibound", *RUN.split())
    assert done.returncode == 0, done.stderr
    assert "test NLL" in done.stdout
    [run] = (release.home / "runs").iterdir()
    for words in (("report", run), ("sample", run, "--count", 4), ("list",), ("list", "recipes"), ("new", "mine")):
        done = release.run("unibound", *words)
        assert done.returncode == 0, (words, done.stderr)


@pytest.mark.slow
def test_a_script_of_a_user_is_type_checked(release: Release) -> None:
    pyright = shutil.which("pyright", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if pyright is None:
        pytest.skip("pyright is not installed")
    config = '{"typeCheckingMode": "standard", "venvPath": "..", "venv": "venv"}'
    (release.home / "pyrightconfig.json").write_text(config)
    script = release.home / "script.py"

    def complaints(text: str) -> list[str]:
        script.write_text(text)
        done = subprocess.run([pyright, script], cwd=release.home, capture_output=True, text=True)
        return [line for line in done.stdout.splitlines() if " - error" in line]

    assert complaints(SCRIPT) == []
    lines = SCRIPT.count("\n")
    found = complaints(SCRIPT + "\n".join(WRONG) + "\n")
    for number, (code, word) in enumerate(WRONG.items(), lines + 1):
        own = [line for line in found if f"script.py:{number}:" in line]
        assert own, f"{code}: no complaint"
        assert any(word in line for line in own), own
