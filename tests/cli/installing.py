"""Install a distribution beside the environment, and run commands that see it."""

import os
import subprocess
import sys
from pathlib import Path

from running import SCRIPT


def install(folder: Path, target: Path) -> dict[str, str]:
    """pip install into a folder of its own, without the network; the environment in which it is seen."""
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*words, "--disable-pip-version-check", "--target", target, folder], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return os.environ | {"PYTHONPATH": str(target), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def unibound(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    """The real command, in an environment."""
    return subprocess.run([SCRIPT, *map(str, words)], env=environment, capture_output=True, text=True)


def pytest(environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The tests of a distribution, in an environment."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, folder]
    return subprocess.run(words, env=environment, capture_output=True, text=True)
