"""The distribution under examples/, installed as a stranger's would be, and examined."""

from pathlib import Path

import installing
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "tvo-ising"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """The environment in which the example is installed."""
    return installing.install(EXAMPLE, tmp_path_factory.mktemp("site"))


def test_holds_every_law(seen):
    checked = installing.unibound(seen, "check", "tvo-ising")
    assert checked.returncode == 0, checked.stdout
    assert "estimator tvo" in checked.stdout
    assert "prior ising" in checked.stdout
    assert checked.stdout.rstrip().endswith(" 0 failed")


def test_its_own_tests_pass(seen):
    tested = installing.pytest(seen, EXAMPLE)
    assert tested.returncode == 0, tested.stdout


def test_is_listed_with_what_it_goes_with(seen):
    listed = installing.unibound(seen, "list")
    assert "tvo-ising" in listed.stdout
    matrix = installing.unibound(seen, "list", "--matrix")
    assert matrix.returncode == 0, matrix.stderr
    assert "ising" in matrix.stdout


@pytest.mark.parametrize(
    "words", [["--estimator", "tvo"], ["--prior", "ising"], ["--estimator", "tvo", "--prior", "ising"]]
)
def test_trains(seen, tmp_path, words):
    small = ["--epochs", 1, "--num-particles", 5, "--partition.num-temperatures", 50, "--run-dir", tmp_path / "run"]
    trained = installing.unibound(seen, "run", *words, *small)
    assert trained.returncode == 0, trained.stderr
    assert "test NLL" in trained.stdout
