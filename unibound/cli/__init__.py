"""The command line."""

import os
import signal
import sys


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `unibound` command; until all is imported, Ctrl-C ends it at once."""
    try:
        before = signal.signal(signal.SIGINT, _leave)
    except ValueError:  # called in another thread than the main one, where no Ctrl-C arrives
        before = None
    try:
        from unibound.cli import app
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
    app.main(arguments)


def _leave(*_: object) -> None:
    """Leave without a word of what was being imported."""
    os.write(sys.stderr.fileno(), b"unibound: interrupted\n")
    os._exit(130)


__all__ = ["main"]
