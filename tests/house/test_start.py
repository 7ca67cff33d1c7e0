"""What needs no mathematics does without torch, which takes ten times as long to import as all the rest."""

import subprocess
import sys

import pytest

SAY = "print(*sorted({'torch', 'numpy', 'unibound_plugins'} & sys.modules.keys()), file=sys.stderr)"


def heavy(code: str) -> list[str]:
    """What of the heavy packages is imported once a fresh Python has run some code."""
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}\n{SAY}"], capture_output=True, text=True)
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
