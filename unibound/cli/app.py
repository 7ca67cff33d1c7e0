"""The command line: parse, call, print.

Exit codes: 0 ok, 1 failed, 2 usage, 3 not finite, 130 interrupted, 141 left by whoever read the output.
"""

import io
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
from unibound.cli import commands, plugins
from unibound.errors import RunWarning, UniboundError, UsageError

SMALLER = "take smaller batches, fewer chains or particles, or fewer threads"
COMPLETION = "--install-completion"
COMMANDS: dict[str, Callable[..., None]] = {
    "certify": commands.certify,
    "check": plugins.check,
    "compare": commands.compare,
    "diagnose": commands.diagnose,
    "evaluate": commands.evaluate,
    "list": plugins.list_plugins,
    "new": plugins.new,
    "report": commands.report,
    "run": commands.run,
    "sample": commands.sample,
    "show": plugins.show,
}


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
    )
    app.register_install_completion_command(COMPLETION)
    called, everything = next((word for word in words if word in COMMANDS), None), COMPLETION in words[:1]
    for name, command in COMMANDS.items():
        if everything or name == called:
            command = _with_settings(command, None if everything else words)
        app.command(command, name=name, help_format="markdown")
    return app


def _with_settings(command: Callable[..., None], words: Sequence[str] | None) -> Callable[..., None]:
    """The command with a flag for each setting that it accepts; help shows those that the words may mean."""
    if command in (commands.run, commands.compare):
        from unibound.cli.flags import accept, of_run

        return accept(command, of_run(words))
    if command in (commands.evaluate, commands.certify):
        from unibound.cli.flags import accept, of_partition

        return accept(command, of_partition(words))
    return command


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `unibound` command."""
    words = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal of few letters gets a question mark for the others
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
    except MemoryError as error:
        _fail(
            f"out of memory{f' ({error})' if str(error) else ''}; take smaller batches, or fewer chains or particles", 1
        )
    except RuntimeError as error:
        if not re.search(r"can't allocate memory|not enough memory|out of memory|can't start new thread", str(error)):
            raise
        _fail(f"{str(error).splitlines()[0]}; {SMALLER}", 1)
    except OSError as error:
        _fail(": ".join(str(part) for part in (error.filename, error.strerror or error) if part), 1)


def _leave() -> None:
    """End as a program does that SIGPIPE ends: whoever read our output, `head` say, has enough of it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):  # what is left in their buffers is to be no second error
        os.dup2(nowhere, stream.fileno())
    sys.exit(141)


def _say(show: Callable[..., None], message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """What is said of a run is one line; all other warnings are shown as ever."""
    if issubclass(category, RunWarning):
        print(f"unibound: {message}", file=sys.stderr, flush=True)
    else:
        show(message, category, *where, **more)


def _fail(text: str, code: int) -> None:
    print(f"unibound: {text}", file=sys.stderr)
    sys.exit(code)
