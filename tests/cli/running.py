"""A run that ends in a tenth of a second, and the real command."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from unibound.cli import main

SCRIPT = Path(sys.executable).with_name("unibound")

TINY = {
    "model.num-latents": "4",
    "model.hidden": "8",
    "prior.num-hidden": "3",
    "prior.num-chains": "5",
    "partition.num-chains": "4",
    "partition.num-temperatures": "5",
    "estimator.num-particles": "2",
    "num-particles": "3",
    "validate-every": "2",
    "epochs": "2",
}


@attrs.frozen
class Result:
    """What a command ended with."""

    code: int
    out: str
    err: str


Cli = Callable[..., Result]
Words = Callable[..., list[str]]


def called(capsys: pytest.CaptureFixture[str], *words: object) -> Result:
    """Call the command line in this process, and catch what it says."""
    capsys.readouterr()
    code = 0
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    captured = capsys.readouterr()
    return Result(code, captured.out, captured.err)


def refused(result: Result, *parts: str, code: int = 2) -> None:
    """One line on stderr, with these parts in it, and nothing on stdout."""
    assert result.code == code, result
    assert result.out == ""
    assert result.err.startswith("unibound: ")
    assert result.err.count("\n") == 1, result.err
    assert result.err.endswith("\n")
    for part in parts:
        assert part in result.err


def words_of(flags: dict[str, object]) -> list[str]:
    """Flags as a person types them."""
    return [str(word) for name, value in flags.items() for word in (f"--{name}", value)]


def start(words: list[str], max_file: int | None = None) -> subprocess.Popen[str]:
    """Start the real command.

    Ctrl-C reaches it even where the tests run in the background; no file may grow beyond `max_file` bytes, and
    then nothing is compiled, which would write to a cache.
    """
    environment = os.environ if max_file is None else os.environ | {"UNIBOUND_KERNELS": "reference"}

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if max_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file, max_file))

    pipe = subprocess.PIPE
    return subprocess.Popen([SCRIPT, *words], stdout=pipe, stderr=pipe, text=True, preexec_fn=prepare, env=environment)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a running process has made a file."""
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
