"""A logger: an object that is told how a run goes. What it is told means the same whatever it makes of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Logger(Protocol):
    """What hears a run: any object with these methods, which are called by one process, the first of several.

    `begin` comes first and `close` last, in whichever way the run ends. A run that goes on tells its loggers everything
    from its first epoch on, so that `begin` drops what an earlier session left; those epochs may have been lost. One
    that cannot begin refuses the run; one that fails later is let go with a warning, and the run goes on.
    """

    def begin(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """A run begins or goes on.

        Args:
            folder: of the run; a logger may keep files of its own in it.
            settings: every setting, as plain nested values.
        """

    def epoch(self, done: int, numbers: Mapping[str, float]) -> None:
        """So many epochs are done, and this was measured after the last of them: the names of metrics.jsonl.

        Bounds are on log p(x), in nats, by the log Z of the last look; as a terminal shows them.
        """

    def picture(self, done: int, name: str, path: Path) -> None:
        """A picture (PNG) was drawn: `film` at every look at the validation set, all others at the end."""

    def conclude(self, done: int, result: Mapping[str, Any]) -> None:
        """The run is finished.

        Args:
            done: epochs in all.
            result: what came out, as evaluation.json has it.
        """

    def close(self) -> None:
        """Nothing more will come."""
