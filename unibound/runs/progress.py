"""Where a run stands, and how whoever watches it is told how far something is."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import attrs

from unibound.partition.log_z import LogZ, Sandwich
from unibound.runs.judgment import Judgment
from unibound.runs.result import plain
from unibound.runs.train import Epoch

Bar = AbstractContextManager[Callable[[int], object]]
"""Shows how far something is: what it yields is called with how much more is done."""


@contextmanager
def no_bar(text: str, total: int) -> Iterator[Callable[[int], object]]:
    """Nobody watches."""
    yield lambda done: None


@attrs.frozen
class Progress:
    """Where a run stands after an epoch; log_z is that of the last look at the validation set.

    Args:
        seconds: wall time since the run began, without the time it lay interrupted.
        stuck: why the chains are not to be relied on, where they were found not to mix after this epoch.
        certain: that q leaves hardly anything open, where it was found after this epoch.
        judged: which look was the best so far.
    """

    epoch: Epoch
    done: int
    valid_nll: float | None
    log_z: LogZ | Sandwich | None
    seconds: float
    stuck: str | None = None
    judged: Judgment = Judgment()
    certain: str | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Progress":
        """The inverse of `to_dict`."""
        return plain.structure(values, cls)

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return plain.unstructure(self)

    @property
    def bound(self) -> float | None:
        """Mean training bound on log p(x), in nats, as far as log Z is known."""
        if self.epoch.bound is None:
            return None
        return self.epoch.bound - (self.log_z.value if self.log_z is not None else 0.0)
