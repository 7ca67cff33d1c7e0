"""What needs no mathematics does without torch, which takes ten times as long to import as all the rest."""

import subprocess
import sys

import pytest

HEAVY = "torch numpy unibound_plugins"
DRAWING = "rich matplotlib jinja2 cyclopts"


def heavy(code: str, packages: str = HEAVY) -> list[str]:
    """What of some packages is imported once a fresh Python has run some code."""
    say = f"print(*sorted(set({packages.split()}) & sys.modules.keys()), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}\n{say}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr.split()


@pytest.mark.parametrize("words", ["--help", "--version", "list", "list --json", "list recipes", "list recipes --json"])
def test_commands_that_only_name_things(words: str) -> None:
    assert heavy(f"from unibound.cli import main; main({words.split()})") == []


@pytest.mark.parametrize(
    "code", ["import unibound", "from unibound import UsageError, hookimpl", "import unibound.cli"]
)
def test_importing_the_package(code: str) -> None:
    assert heavy(code) == []


def test_public_names_bring_what_they_need() -> None:
    assert "torch" in heavy("import unibound; unibound.Run")
    assert "torch" in heavy("from unibound import *; JointBound")
    assert "torch" in heavy("from unibound import kernels")


@pytest.mark.parametrize("code", ["import unibound", "import unibound; unibound.fit, unibound.load, unibound.Trained"])
def test_who_trains_from_python_does_not_wait_for_what_draws(code: str) -> None:
    assert heavy(code, DRAWING) == []


def test_who_only_names_what_trains_waits_for_torch_alone() -> None:
    machinery = "cattrs tomli_w safetensors filelock pluggy unibound.runs unibound.evaluation unibound.settings"
    assert heavy("import unibound; unibound.fit, unibound.load", machinery) == []
    assert "unibound.runs" in heavy("import unibound; unibound.Trained", machinery)


def test_who_wants_a_report_gets_what_draws() -> None:
    assert "jinja2" in heavy("import unibound.report.page", DRAWING)
