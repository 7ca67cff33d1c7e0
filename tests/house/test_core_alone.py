"""The core stands without any plugin: its own tests pass with plugins/ deleted."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CONFTEST = """
import importlib.metadata
import sys

every = importlib.metadata.entry_points
importlib.metadata.entry_points = lambda **by: every(**by) if by.get("group") != "unibound" else every(group="none")
sys.modules["unibound_plugins"] = None  # what is still installed cannot be imported
"""


@pytest.mark.slow
def test_core_passes_its_tests_without_plugins(tmp_path: Path) -> None:
    for name in ("unibound", "tests/core"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    command = [sys.executable, "-m", "pytest", "tests/core", "-q", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
