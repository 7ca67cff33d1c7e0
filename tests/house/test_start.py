"""The command line answers in the time of importing torch, and half a second."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = str(Path(sys.executable).with_name("unibound"))
ALLOWED = 0.5  # seconds beyond importing torch
ROUNDS = 3


def seconds(*command: str) -> float:
    """Processor time of a command, which other work on the machine hardly disturbs; the best of a few."""
    taken = []
    for _ in range(ROUNDS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True, env={"OMP_NUM_THREADS": "1"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(taken)


@pytest.fixture(scope="module")
def torch_seconds() -> float:
    return seconds(sys.executable, "-c", "import torch")


@pytest.mark.parametrize("word", ["--help", "list"])
def test_starts_quickly(word: str, torch_seconds: float) -> None:
    extra = seconds(COMMAND, word) - torch_seconds
    # On a machine where torch takes more than a second, everything takes longer.
    allowed = ALLOWED * max(1.0, torch_seconds)
    assert extra < allowed, f"`unibound {word}` takes {extra:.2f} s beyond the {torch_seconds:.2f} s of importing torch"
