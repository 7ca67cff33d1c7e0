"""The three parts of a data set.

Shapes: N data, *X one datum. Images are upright, and ink is their greatest value.
"""

import copy
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import attrs
import torch
from torch import Tensor

from unibound import support
from unibound.errors import UsageError
from unibound.record import Record
from unibound.support import Constraint


def _float32(x: Tensor) -> Tensor:
    return torch.as_tensor(x).to(torch.float32)


@attrs.frozen(eq=False)
class Splits:
    """The three parts of a data set, checked when they are put together.

    Args:
        train: what the parameters see [N, *X]; kept as float32.
        valid: what choices are made on [N', *X].
        test: what is reported [N'', *X].
        source: the file they came from, for error messages.
        support: what one element is made of; where it is left out, what all values together reveal.
        levels: how many grey levels the numbers from 0 to 1 stand for, where they do.

    Raises:
        UsageError: a split that is empty, not finite, of another event shape, or with values outside the support.
    """

    train: Tensor = attrs.field(converter=_float32)
    valid: Tensor = attrs.field(converter=_float32)
    test: Tensor = attrs.field(converter=_float32)
    source: str = attrs.field(default="data", kw_only=True)
    support: Constraint = attrs.field(
        default=attrs.Factory(lambda self: reveal([x for _, x in self.items()]), takes_self=True), kw_only=True
    )
    levels: int | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        for name, x in self.items():
            where = f"{self.source}: {name}"
            if x.ndim < 2 or 0 in x.shape[1:]:
                raise UsageError(f"{where} has shape {list(x.shape)}; it must be [count, pixels...]")
            if len(x) == 0:
                raise UsageError(f"{where} is empty; each of train, valid and test needs at least one datum")
            if x.shape[1:] != self.train.shape[1:]:
                raise UsageError(
                    f"{where} has data of shape {list(x.shape[1:])}, train of {list(self.train.shape[1:])}; "
                    "give all splits one shape, one row per datum"
                )
            low, high = (bound.item() for bound in x.aminmax())  # one pass; both are NaN if any value is
            if not (math.isfinite(low) and math.isfinite(high)):
                raise UsageError(f"{where} holds NaN or infinite values; replace or drop them")
            support.require(self.support, x, where)

    @property
    def event_shape(self) -> torch.Size:
        """The shape [*X] of one datum."""
        return self.train.shape[1:]

    def to(self, device: torch.device, dtype: torch.dtype) -> "Splits":
        """The same data elsewhere, or in another precision."""
        moved = copy.copy(self)
        for name, x in self.items():
            object.__setattr__(moved, name, x.to(device, dtype))  # past the converter to float32
        return moved

    def digest(self) -> str:
        """SHA-256 of the data, as they are now."""
        digest = hashlib.sha256()
        for name, x in self.items():
            digest.update(name.encode())
            digest.update(x.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the tensor of each split, train first."""
        return ((name, getattr(self, name)) for name in ("train", "valid", "test"))


def reveal(tensors: Sequence[Tensor]) -> Constraint:
    """What values show themselves to be: bits, spins, numbers from 0 to 1, counts, or else reals."""
    for one in (support.boolean, support.spin, support.unit_interval, support.nonnegative_integer):
        if all(bool(one.check(x).all()) for x in tensors):
            return one
    return support.real


def spread(x: Tensor, count: int | None) -> Tensor:
    """At most `count` of x [N, ...], evenly spread: files are often sorted, and their first data no sample."""
    if count is None or count >= len(x):
        return x
    return x[torch.arange(max(count, 1), device=x.device) * len(x) // max(count, 1)]


class DataSet(Record, ABC):
    """A data set by name. Final subclasses are `attrs.frozen` records of settings."""

    @abstractmethod
    def load(self) -> Splits:
        """Read the data, in the same order and with the same split every time."""
