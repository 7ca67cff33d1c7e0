"""The command line: parse, call, print.

Exit codes: 0 ok, 1 failed, 2 usage, 3 not finite, 130 interrupted, 141 left by whoever read the output.
"""

import codecs
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cyclopts
from cyclopts import App

import unibound
from unibound.cli import bench, commands, export, plugins, side_by_side
from unibound.errors import RunWarning, UniboundError, UsageError

COMPLETION = "--install-completion"
PLAIN = "unibound.plainly"
NO_ROOM = re.compile(
    "not enough memory|out of memory|can't allocate|Unable to allocate|can't start new thread|numel.*overflow"
    "|size calculation overflowed|Overflow when unpacking long|array is too big|exceeds the maximum"
    "|too large to convert|Maximum allowed size"
)
"""How torch, numpy and Python say that they have no room."""
COMMANDS: dict[str, Callable[..., None]] = {
    "bench": bench.bench,
    "certify": commands.certify,
    "check": plugins.check,
    "compare": side_by_side.compare,
    "data": commands.data,
    "diagnose": commands.diagnose,
    "evaluate": commands.evaluate,
    "export": export.export,
    "list": plugins.list_plugins,
    "new": plugins.new,
    "report": commands.report,
    "run": commands.run,
    "sample": commands.sample,
    "show": plugins.show,
}

PAGES = {
    "bench": "scale",
    "certify": "rbms",
    "check": "writing-a-plugin",
    "compare": "how-to-choose",
    "diagnose": "reproducing",
    "new": "writing-a-plugin",
    "run": "how-to-choose",
}
"""The guide that a command's help names, where it is another than that of all."""


def parser(words: Sequence[str]) -> App:
    """The commands, with a flag for each setting of the one that words call.

    Making those flags imports every plugin, so the other commands go without; only completion knows all.
    """
    app = App(
        name="unibound",
        help="Train deep generative models with latent variables by any bound, and know how good they really are.",
        version=unibound.__version__,
        help_format="plaintext",  # it is done sooner
        suppress_keyboard_interrupt=False,  # `main` has something to say of it
        result_action="return_value",
        help_epilogue=_page("index"),
    )
    app.register_install_completion_command(COMPLETION)
    called, everything = next((word for word in words if word in COMMANDS), None), COMPLETION in words[:1]
    for name, command in COMMANDS.items():
        if everything or name == called:
            command = _with_settings(command, None if everything else words)
        app.command(command, name=name, help_format="markdown", help_epilogue=_page(PAGES.get(name, "index")))
    return app


def _page(name: str) -> str:
    return f"More in the documentation: docs/{name}.md"


def _with_settings(command: Callable[..., None], words: Sequence[str] | None) -> Callable[..., None]:
    """The command with a flag for each setting that it accepts; help shows those that the words may mean."""
    if command in (commands.run, side_by_side.compare):
        from unibound.cli.flags import accept, of_run

        return accept(command, of_run(words), words)
    if command in (commands.evaluate, commands.certify):
        from unibound.cli.flags import accept, of_partition

        return accept(command, of_partition(words), words)
    return command


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `unibound` command."""
    words = sys.argv[1:] if arguments is None else arguments
    _say_what_takes_long()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors=PLAIN)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", RunWarning)
            warnings.showwarning = partial(_say, warnings.showwarning)
            parser(words)(words, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        _fail(" ".join(str(error).split()), UsageError.exit_code)
    except UniboundError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt as error:
        _fail(str(error) or "interrupted", 130)
    except BrokenPipeError:
        _leave()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # which rich makes an ordinary failure of
            _leave()
        raise
    except OSError as error:
        _fail(": ".join(str(part) for part in (error.filename, error.strerror or error) if part), 1)
    except (MemoryError, RuntimeError, TypeError, ValueError, OverflowError) as error:
        if (asked := room_asked(error)) is None:
            raise
        _fail(f"there is not enough memory: {asked}; ask for less, as by smaller numbers of particles or chains", 1)


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """What a terminal is shown that cannot show what it should."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join({"±": "+-"}.get(letter, "?") for letter in text), error.end


codecs.register_error(PLAIN, _plainly)


def room_asked(error: BaseException) -> str | None:
    """What was asked for, where an error says that there is no room for it; None for every other error."""
    text = " ".join(str(error).split())
    return (text[:120] or type(error).__name__) if isinstance(error, MemoryError) or NO_ROOM.search(text) else None


def _leave() -> None:
    """End as a program does that SIGPIPE ends: whoever read our output, `head` say, has enough of it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):  # what is left in their buffers is to be no second error
        os.dup2(nowhere, stream.fileno())
    sys.exit(141)


def _say_what_takes_long() -> None:
    """Let the package say on stderr what keeps a person waiting, unless whoever calls has decided about its log."""
    log = logging.getLogger("unibound")
    if not log.handlers and log.level == logging.NOTSET:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("unibound: %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


def _say(show: Callable[..., None], message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """What is said of a run is one line; all other warnings are shown as ever."""
    if issubclass(category, RunWarning):
        print(f"unibound: {message}", file=sys.stderr, flush=True)
    else:
        show(message, category, *where, **more)


def _fail(text: str, code: int) -> None:
    print(f"unibound: {text}", file=sys.stderr)
    sys.exit(code)
