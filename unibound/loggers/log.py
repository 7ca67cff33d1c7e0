"""A run as its loggers are told of it; what befalls one of them is not the run's misfortune."""

import json
import tomllib
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from unibound import ranks
from unibound.errors import UsageError
from unibound.loggers.logger import Logger
from unibound.runs import metrics
from unibound.runs.folder import Say, warn
from unibound.runs.pictures import FILM
from unibound.runs.progress import Progress
from unibound.runs.result import Result
from unibound.runs.run import Run
from unibound.settings import sources

NO_NUMBERS = {"done", "stage", "epoch"}


class Log:
    """Tells loggers what a run measures; a context, within which they are open.

    Args:
        run: which has its folder already.
        loggers: who hears of it; of several ranks, those of the first.
        say: told of one that failed.

    Raises:
        UsageError: as the context is entered, a logger that cannot begin.
    """

    def __init__(self, run: Run, loggers: Iterable[Logger], say: Say = warn) -> None:
        self._run, self._say, self._lines = run, say, metrics.normalized(_lines(run))
        self._loggers = list(loggers) if ranks.rank() == 0 else []

    def __enter__(self) -> Self:
        settings = tomllib.loads(sources.write(self._run.settings))
        waiting, self._loggers = self._loggers, []
        for logger in waiting:
            try:
                logger.begin(self._run.path, settings)
            except Exception as error:
                self.close()
                raise UsageError(
                    f"logger {_name(logger)} cannot begin: {_line(error)}; mend that, or leave it out; nothing was "
                    f"trained in {self._run.path}"
                ) from error
            self._loggers.append(logger)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Tell them that nothing more will come."""
        self._tell("close")
        self._loggers = []

    def after(self, progress: Progress) -> None:
        """Tell what was measured in all epochs up to where the run stands, as far as it was not told before."""
        if not self._loggers:
            return
        for line in self._lines:
            found = {name: value for name, value in line.items() if name not in NO_NUMBERS and value is not None}
            self._tell("epoch", line["done"], found)
            frame = self._run.path / FILM / f"{line['done']:06}.png"
            if frame.exists():
                self._tell("picture", line["done"], FILM, frame)
            if line["done"] == progress.done:
                break

    def conclude(self, result: Result) -> None:
        """Tell what came out, and show the pictures of a finished run."""
        if not self._loggers:
            return
        done = metrics.read(self._run.path)[-1]["done"]
        for path in sorted(self._run.path.glob("*.png")):
            self._tell("picture", done, path.stem, path)
        self._tell("conclude", done, result.document)

    def _tell(self, what: str, *values: Any) -> None:
        for logger in tuple(self._loggers):
            try:
                getattr(logger, what)(*values)
            except Exception as error:
                self._loggers.remove(logger)
                self._say(
                    f"logger {_name(logger)} failed, and is told no more: {_line(error)}; the run goes on, and "
                    f"{self._run.path / metrics.METRICS} has its numbers"
                )


def _lines(run: Run) -> Iterator[metrics.Line]:
    """The lines of a run's metrics, each to be asked for when it is there."""
    with (run.path / metrics.METRICS).open() as file:
        while text := file.readline():
            yield json.loads(text)


def _name(logger: Logger) -> str:
    return type(logger).__name__


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
