"""Several things at once, each in a process of its own, which may be ended without the others."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

from unibound.errors import UniboundError, UsageError


def each(function: Callable[[Path], object], paths: Sequence[Path], jobs: int) -> Iterator[Path]:
    """Call a function of a module with each of several paths, so many at a time, and yield each path once it is done.

    Raises:
        UsageError, UniboundError: what the function raised, in words.
        UniboundError: a process that was ended from outside; the others are ended with it.
    """
    context, waiting, running = get_context("spawn"), list(paths), {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                path = waiting.pop(0)
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_call, args=(function, path, sender))
                process.start()
                sender.close()
                running[process.sentinel] = (path, process, receiver)
            for sentinel in wait(list(running)):
                path, process, receiver = running.pop(sentinel)  # pyright: ignore[reportArgumentType]
                process.join()
                said: tuple[bool, str] | None = None
                with suppress(EOFError):  # it was ended before it could say anything
                    said = receiver.recv()
                if said is None:
                    raise UniboundError(
                        f"the process of {path.name} was ended ({_ending(process.exitcode)}); the same command goes on "
                        "where this stopped"
                    )
                usage, text = said
                if text:
                    raise (UsageError if usage else UniboundError)(f"{path.name}: {text}")
                yield path
    finally:
        for _, process, _ in running.values():
            process.terminate()
            process.join()


def _call(function: Callable[[Path], object], path: Path, sender: Connection) -> None:
    try:
        function(path)
    except UniboundError as error:
        sender.send((isinstance(error, UsageError), str(error)))
    except KeyboardInterrupt:  # which whoever started this hears, too
        sys.exit(130)
    else:
        sender.send((False, ""))


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {-code}" + (", as for want of memory" if code == -9 else "")
    return f"exit code {code}"
