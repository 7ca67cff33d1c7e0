"""The three parts of a data set.

Shapes: N data, *X one datum. Every value is in [0, 1], ink = 1, images upright.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import attrs
import torch
from torch import Tensor

from unibound.errors import UsageError


def _float32(x: Tensor) -> Tensor:
    return torch.as_tensor(x).to(torch.float32)


@attrs.frozen(eq=False)
class Splits:
    """The three parts of a data set, checked when they are put together.

    Args:
        train: what the parameters see [N, *X], values in [0, 1]; kept as float32.
        valid: what choices are made on [N', *X].
        test: what is reported [N'', *X].
        source: the file they came from, for error messages.

    Raises:
        UsageError: a split that is empty, not finite, outside [0, 1], or of another event shape.
    """

    train: Tensor = attrs.field(converter=_float32)
    valid: Tensor = attrs.field(converter=_float32)
    test: Tensor = attrs.field(converter=_float32)
    source: str = attrs.field(default="data", kw_only=True)

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
            if low < 0 or high > 1:
                raise UsageError(
                    f"{where} has values from {low:g} to {high:g}; they must be in [0, 1] "
                    "(grey levels 0..255 are read from uint8 arrays)"
                )

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

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the tensor of each split, train first."""
        return ((name, getattr(self, name)) for name in ("train", "valid", "test"))


class DataSet(ABC):
    """A data set by name. Final subclasses are `attrs.frozen` records of settings."""

    @abstractmethod
    def load(self) -> Splits:
        """Read the data, in the same order and with the same split every time."""
