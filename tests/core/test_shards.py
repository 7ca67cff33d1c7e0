"""Processes that share the chains end with the one that began them, and their end is told in one line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest

from unibound import UniboundError
from unibound.partition import schedules, shards

# A prior that says, in the process where it arrives, who that is, and keeps it busy.
BUSY = """
import sys
from unibound.partition import schedules, shards

CODE = '''
import os, time
with open({0!r}, "w") as file:
    file.write(str(os.getpid()) + " ")
time.sleep(600)
'''

class Busy:
    def __reduce__(self):
        return exec, (CODE.format(sys.argv[1]),)

if __name__ == "__main__":
    shards.forward(Busy(), 1, schedules.of([0.0, 1.0]), 2, seed=0)
"""


class Deadly:
    """A prior that ends the process where it arrives."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (7,)


def test_a_process_that_dies_is_named() -> None:
    with pytest.raises(UniboundError, match="a process that ran chains ended with 7"):
        shards.forward(cast(Any, Deadly()), 1, schedules.of([0.0, 1.0]), 2, seed=0)


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_one_that_began_it(tmp_path: Path, end: signal.Signals) -> None:
    script, found = tmp_path / "busy.py", tmp_path / "pid"
    script.write_text(BUSY)
    parent = subprocess.Popen(
        [sys.executable, script, found], stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while not (found.exists() and found.read_text().endswith(" ")):
        assert parent.poll() is None, parent.communicate()
        time.sleep(0.05)
    worker = int(found.read_text())
    assert alive(worker)
    # Ctrl-C reaches every process of a terminal, a kill only one.
    (os.kill if end == signal.SIGKILL else os.killpg)(parent.pid, end)
    _, said = parent.communicate()
    assert parent.returncode in (-end, 130, 1)
    assert "SpawnProcess" not in said
    for _ in range(1200):
        if not alive(worker):
            return
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError(f"process {worker} outlived its parent")
