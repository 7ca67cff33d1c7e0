"""Data as they are kept, and as numbers once some of them are asked for.

Shapes: N data, *X one datum, D elements of one.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, overload

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding

BLOCK = 2**22  # elements that are looked at together
_BYTES = (torch.uint8, torch.int8)
_BITS = ((torch.arange(256).unsqueeze(1) >> torch.arange(7, -1, -1)) & 1).float()  # [256, 8]


@attrs.frozen(eq=False)
class Rows:
    """Data [N, *X]: whole numbers of one byte stay bytes, and packed bits stay packed, until they are asked for.

    It is indexed and split like a tensor, and what that gives are tensors of numbers: a million pictures of bits take
    the room of their file, and a batch of them that of a batch.

    Args:
        kept: numbers [N, *X], or bits packed by `np.packbits` [N, ceil(D / 8)].
        event_shape: shape [*X] of one datum.
        packed: whether they are.
        divisor: what the numbers kept are divided by as they are read.
        dtype: of the numbers that are read.
    """

    kept: Tensor
    event_shape: tuple[int, ...]
    packed: bool = False
    divisor: float = 1.0
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, x: Any) -> "Rows":
        """Numbers [N, *X], of whatever type, as they are best kept: bytes as bytes, all else as float32."""
        if isinstance(x, Rows):
            return x
        if isinstance(x, np.ndarray):
            with np.errstate(over="ignore"):  # infinities are refused by whoever uses them
                wide = x.dtype.itemsize > 1 and x.dtype != np.float32
                x = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32 if wide else x.dtype.newbyteorder("=")))
        kept = torch.as_tensor(x)
        kept = kept.view(torch.uint8) if kept.dtype is torch.bool else kept
        return cls(kept if kept.dtype in _BYTES else kept.to(torch.float32), tuple(kept.shape[1:]))

    def __len__(self) -> int:
        return len(self.kept) if self.kept.dim() else 0

    @property
    def shape(self) -> torch.Size:
        """The shape [N, *X]."""
        return torch.Size(self.kept.shape[:1] + self.event_shape)

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.kept.device

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Some of the data as numbers."""
        kept = self.kept[rows]
        if self.packed:
            bits = embedding(kept.int(), _BITS.to(kept.device)).flatten(1)[:, : math.prod(self.event_shape)]
            return bits.reshape(-1, *self.event_shape).to(self.dtype)
        if self.divisor == 1:
            return kept.to(self.dtype)
        # By a plain number a GPU divides inexactly, and its levels would be others.
        divisor = torch.full((), self.divisor, dtype=torch.float32, device=kept.device)
        return kept.to(torch.float32).div(divisor).to(self.dtype)  # as if they had been kept as float32

    def split(self, count: int) -> Iterator[Tensor]:
        """All the data, so many at a time."""
        return (self[start : start + count] for start in range(0, len(self), count))

    def blocks(self) -> Iterator[Tensor]:
        """All the data, as many at a time as fit well into memory."""
        return self.split(max(1, BLOCK // max(1, math.prod(self.event_shape))))

    def mean(self) -> Tensor:
        """The mean over all data [*X], of an element over those where it is not missing."""
        blocks = self.blocks()
        first = next(blocks)
        if len(first) == len(self):
            found = first.mean(0)
        else:
            total = sum((block.double().sum(0) for block in blocks), first.double().sum(0))
            found = (total / len(self)).to(self.dtype)
        return self._mean_observed() if found.isnan().any() else found

    def _mean_observed(self) -> Tensor:
        """The mean of what is not missing, NaN; of an element that always is, that of all others."""
        total = sum(block.double().nansum(0) for block in self.blocks())
        seen = sum((~block.isnan()).sum(0) for block in self.blocks())
        overall = torch.as_tensor(total).sum() / torch.as_tensor(seen).sum()
        return torch.where(torch.as_tensor(seen) > 0, total / seen, overall).to(self.dtype)

    def part(self, rows: slice | Tensor) -> "Rows":
        """Some of the data, kept as they are."""
        return attrs.evolve(self, kept=self.kept[rows])

    def to(self, device: torch.device, dtype: torch.dtype) -> "Rows":
        """The same data elsewhere, to be read in another precision."""
        kept = self.kept.to(device, dtype if self.kept.is_floating_point() and self.divisor == 1 else None)
        return attrs.evolve(self, kept=kept, dtype=dtype)

    def divided(self, divisor: float) -> "Rows":
        """The same data divided by a number: bytes as they are read, others at once."""
        if self.kept.dtype in _BYTES:
            return attrs.evolve(self, divisor=self.divisor * divisor)
        return attrs.evolve(self, kept=self.kept / divisor)

    def as_bits(self, decide: Callable[[Tensor], Tensor]) -> "Rows":
        """What is made of the data, block by block, kept as bytes."""
        made = torch.empty(self.shape, dtype=torch.uint8)
        start = 0
        for block in self.blocks():
            made[start : start + len(block)] = decide(block)
            start += len(block)
        return Rows(made, self.event_shape, dtype=self.dtype).to(self.device, self.dtype)


Data = Tensor | Rows
"""What is split, indexed and counted alike."""


@overload
def spread(x: Tensor, count: int | None) -> Tensor: ...
@overload
def spread(x: Data, count: int | None) -> Data: ...
def spread(x: Data, count: int | None) -> Data:
    """At most `count` of x [N, ...], evenly spread: files are often sorted, and their first data no sample."""
    if count is None or count >= len(x):
        return x
    return x[torch.arange(max(count, 1), device=x.device) * len(x) // max(count, 1)]
