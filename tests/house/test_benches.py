"""The benches are there when they are wanted. How fast anything is, no test asks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "words", [["--collect-only"], pytest.param(["--rounds", "2"], marks=pytest.mark.slow)], ids=["collect", "run"]
)
def test_every_bench_runs(words: list[str]) -> None:
    command = [sys.executable, "-m", "pytest", "benches", "-q", "-n", "0", "-p", "no:cacheprovider", *words]
    # To pytest-benchmark, a worker of xdist is no place to measure: it would run each bench once.
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST_")}
    environment = own | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
