"""The command line."""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `unibound` command; while anything is being imported, Ctrl-C ends it at once."""
    before = signal.getsignal(signal.SIGINT)
    try:
        if callable(before):  # a command in the background may have been told to ignore it
            signal.signal(signal.SIGINT, partial(_interrupted, before))
    except ValueError:  # called in another thread than the main one, where no Ctrl-C arrives
        before = None
    try:
        from unibound.cli import app

        app.main(arguments)
    finally:
        if callable(before):
            signal.signal(signal.SIGINT, before)


def _interrupted(before: Handler, number: int, frame: FrameType | None) -> None:
    """Leave without a word of what was being imported: libraries swallow the interrupt, and go on in halves."""
    inner = frame
    while inner is not None:
        if inner.f_code.co_filename.startswith("<frozen importlib"):
            os.write(sys.stderr.fileno(), b"unibound: interrupted\n")
            os._exit(130)
        inner = inner.f_back
    before(number, frame)


__all__ = ["main"]
