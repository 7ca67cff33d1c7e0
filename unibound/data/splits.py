"""The three parts of a data set.

Shapes: N data, *X one datum. Images are upright, and ink is their greatest value.
"""

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import attrs
import torch
from torch import Tensor

from unibound import support
from unibound.data.rows import Rows, spread
from unibound.errors import UsageError
from unibound.record import Record
from unibound.support import Constraint

__all__ = ["PARTS", "DataSet", "Splits", "reveal", "spread"]

PARTS = ("train", "valid", "test")


@attrs.frozen(eq=False)
class Splits:
    """The three parts of a data set, checked when they are put together.

    They are kept as they come, bytes as bytes. `rows` hands them out batch by batch; `train`, `valid` and `test` are
    all of a part at once, as float32.

    Args:
        train: what the parameters see [N, *X].
        valid: what choices are made on [N', *X].
        test: what is reported [N'', *X].
        source: the file they came from, for error messages.
        support: what one element is made of; where it is left out, what all values together reveal.
        levels: how many grey levels the numbers from 0 to 1 stand for, where they do.
        labels: of the parts where they are known, the class of each datum, in words.

    Raises:
        UsageError: a split that is empty, not finite, of another event shape, or with values outside the support.
    """

    _train: Rows = attrs.field(converter=Rows.of)
    _valid: Rows = attrs.field(converter=Rows.of)
    _test: Rows = attrs.field(converter=Rows.of)
    source: str = attrs.field(default="data", kw_only=True)
    support: Constraint = attrs.field(
        default=attrs.Factory(lambda self: reveal([self.rows(name) for name in PARTS]), takes_self=True), kw_only=True
    )
    levels: int | None = attrs.field(default=None, kw_only=True)
    labels: Mapping[str, Sequence[str]] = attrs.field(factory=dict, kw_only=True)

    def __attrs_post_init__(self) -> None:
        for name in PARTS:
            x, where = self.rows(name), f"{self.source}: {name}"
            if x.kept.dim() < 2 or 0 in x.shape[1:]:
                raise UsageError(f"{where} has shape {list(x.kept.shape)}; it must be [count, pixels...]")
            if len(x) == 0:
                raise UsageError(f"{where} is empty; each of train, valid and test needs at least one datum")
            if x.shape[1:] != self.event_shape:
                raise UsageError(
                    f"{where} has data of shape {list(x.shape[1:])}, train of {list(self.event_shape)}; "
                    "give all splits one shape, one row per datum"
                )
            if name in self.labels and len(self.labels[name]) != len(x):
                raise UsageError(f"{where} has {len(x)} data and {len(self.labels[name])} labels; give each datum one")
            partly = isinstance(self.support, support.partly)
            for block in x.blocks():
                total = block.nansum(dtype=torch.float64) if partly else block.sum(dtype=torch.float64)
                if not total.isfinite():  # as every sum of finite float32 is
                    cure = '; where NaN is what is missing, say so: missing="nan"' if block.isnan().any() else ""
                    raise UsageError(f"{where} holds NaN or infinite values; replace or drop them{cure}")
                support.require(self.support, block, where)

    @property
    def train(self) -> Tensor:
        """What the parameters see [N, *X], all at once."""
        return self._train[:]

    @property
    def valid(self) -> Tensor:
        """What choices are made on [N', *X], all at once."""
        return self._valid[:]

    @property
    def test(self) -> Tensor:
        """What is reported [N'', *X], all at once."""
        return self._test[:]

    def rows(self, name: str) -> Rows:
        """A part by its name, as it is kept."""
        return getattr(self, f"_{name}")

    @property
    def event_shape(self) -> torch.Size:
        """The shape [*X] of one datum."""
        return self._train.shape[1:]

    def to(self, device: torch.device, dtype: torch.dtype) -> "Splits":
        """The same data elsewhere, or in another precision."""
        moved = copy.copy(self)
        for name in PARTS:
            object.__setattr__(moved, f"_{name}", self.rows(name).to(device, dtype))  # they were checked already
        return moved

    def digest(self) -> str:
        """SHA-256 of the data, as numbers."""
        digest = hashlib.sha256()
        for name in PARTS:
            digest.update(name.encode())
            for block in self.rows(name).blocks():
                digest.update(block.cpu().contiguous().numpy())  # pyright: ignore[reportArgumentType]
        return digest.hexdigest()

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the tensor of each split, train first."""
        return ((name, getattr(self, name)) for name in PARTS)


def require_part(name: str) -> str:
    """The name of a part. Raises UsageError for what is none."""
    if name not in PARTS:
        raise UsageError(f"split must be train, valid or test, not {name!r}")
    return name


def classes(labels: Sequence[str]) -> list[str]:
    """The classes that labels name, each once, 10 after 9."""
    return sorted(set(labels), key=lambda name: (len(name), name))


def hold_out(x: Rows, count: int) -> tuple[Rows, Rows]:
    """All but `count` of data [N, *X], and these, evenly spread: files are often sorted."""
    chosen = torch.zeros(len(x), dtype=torch.bool)
    chosen[spread(torch.arange(len(x)), count)] = True
    return x.part(~chosen), x.part(chosen)


def reveal(parts: Sequence[Rows]) -> Constraint:
    """What values show themselves to be: bits, spins, numbers from 0 to 1, counts, or else reals."""
    for one in (support.boolean, support.spin, support.unit_interval, support.nonnegative_integer):
        if all(bool(one.check(block).all()) for x in parts for block in x.blocks()):
            return one
    return support.real


class DataSet(Record, ABC):
    """A data set by name. Final subclasses are `attrs.frozen` records of settings."""

    @abstractmethod
    def load(self) -> Splits:
        """Read the data, in the same order and with the same split every time."""
