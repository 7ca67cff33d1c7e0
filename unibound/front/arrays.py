"""Data as they are at hand in Python, and back: arrays of numpy, tensors, lists, dicts of splits, data sets of torch.

Shapes: N data, *X one datum.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from unibound.data.files import grey_levels
from unibound.data.missing import marked, whole
from unibound.data.missing import splits_of as with_missing
from unibound.data.rows import Rows
from unibound.data.splits import PARTS, Splits, hold_out
from unibound.errors import UsageError
from unibound.registry import did_you_mean
from unibound.support import integer_interval


def splits_of(x: Any, levels: int | None = None, missing: Any = None) -> Splits:
    """Data as three parts. Of a single array every tenth datum validates, and every tenth tests.

    Numbers are what they are; bytes that hold both 0 and 255 are 256 grey levels, as in files.

    Args:
        x: data [N, *X], or a mapping of `train`, and perhaps `valid` and `test`, to such.
        levels: how many grey levels there are, 0 to `levels` - 1, where the data are levels.
        missing: which elements are missing: "nan", those that are NaN; or true where they are, of the shape of the
            data, or a mapping of parts to such.

    Raises:
        UsageError: what is no data, or too few to be split.
    """
    if isinstance(x, Splits):
        if missing is not None:
            raise UsageError("missing is of arrays; Splits say themselves what is missing")
        return x
    parts = dict(x) if isinstance(x, Mapping) else {"train": x}
    for name in parts:
        if name not in PARTS:
            raise UsageError(f"unknown split {name!r}; {did_you_mean(str(name), list(PARTS))}")
    if "train" not in parts:
        raise UsageError(f"no split 'train' among {', '.join(parts) or 'none'}; name the data that are learned from so")
    rows = {name: rows_of(one, name if isinstance(x, Mapping) else "x") for name, one in parts.items()}
    known = grey_levels(rows) if levels is None else integer_interval(0, _count(levels) - 1)
    for name, mask in _masks(missing, rows, named=isinstance(x, Mapping)).items():
        rows[name] = marked(rows[name], mask, f"missing of {name}" if isinstance(x, Mapping) else "missing")
    for name in ("test", "valid"):
        if name not in rows:
            count = max(1, len(rows["train"]) // 10)
            if len(rows["train"]) <= count:
                raise UsageError(f"{len(rows['train'])} data are too few to split off {count} as {name}; give more")
            rows["train"], rows[name] = hold_out(rows["train"], count)
    made = whole if missing is None else with_missing
    return made(rows, source="x", **({} if known is None else {"support": known}))


def missing_of(x: Rows, missing: Any) -> Rows:
    """New data [N, *X] with NaN where elements are missing. Raises UsageError for NaN that nobody said is that."""
    if missing is None and x.kept.is_floating_point() and x.kept.isnan().any():
        raise UsageError('x holds NaN; replace or drop it, or say missing="nan" where that is what is missing')
    masks = _masks(missing, {"train": x}, named=False)
    return marked(x, masks["train"], "missing") if masks else x


def rows_of(x: Any, who: str = "x") -> Rows:
    """Data [N, *X] as they are kept. Raises UsageError for what is no array of numbers."""
    if isinstance(x, Dataset):
        x = _stacked(x, who)
    if isinstance(x, Tensor):
        if x.is_complex():
            raise UsageError(f"{who} holds complex numbers; give their parts as elements of their own")
        if x.is_meta or x.is_quantized or x.layout is not torch.strided:
            kind = "quantized" if x.is_quantized else "meta" if x.is_meta else str(x.layout).removeprefix("torch.")
            raise UsageError(f"{who} is a {kind} tensor; give a dense one that holds its numbers")
        return Rows.of(x.detach().cpu())
    if isinstance(x, np.ma.MaskedArray):
        raise UsageError(f"{who} is a masked array; give {who}.data, and missing={who}.mask beside it")
    try:
        array = np.asarray(x)
    except ValueError as error:  # rows of unequal lengths
        raise UsageError(f"{who} is no array: {str(error).splitlines()[0]}; give every datum the same shape") from error
    if array.dtype.kind not in "buif":
        what = "nothing" if x is None else f"{array.dtype}" if array.ndim else f"a {type(x).__name__}"
        raise UsageError(f"{who} holds {what}, not numbers; give an array or a tensor [N, ...]")
    return Rows.of(array)


def _masks(missing: Any, rows: Mapping[str, Rows], *, named: bool) -> dict[str, Tensor]:
    """Masks of some parts, as they were given."""
    if missing is None or (isinstance(missing, str) and missing == "nan"):
        return {}
    if isinstance(missing, str) or isinstance(missing, Mapping) != named:
        what = "a mapping of parts to masks" if named else "a mask of the shape of x"
        raise UsageError(f'missing must be "nan" or {what}, not a {type(missing).__name__}')
    masks = dict(missing) if named else {"train": missing}
    if stray := [name for name in masks if name not in rows]:
        raise UsageError(f"missing has a mask of {stray[0]}, of which there are no data; leave it out")
    return {name: rows_of(mask, "missing")[:] for name, mask in masks.items()}


def like(x: Any) -> Callable[[Tensor], Any]:
    """What hands results out as x came in: tensors for tensors, on their device, and arrays of numpy for all else."""
    if isinstance(x, Tensor):
        return lambda made: made.to(x.device)
    return lambda made: made.cpu().numpy()


def _stacked(x: Dataset, who: str) -> Tensor:
    """The data of a map-style data set of torch; of pairs, the first."""
    try:
        found = [x[index] for index in range(len(x))]  # pyright: ignore[reportArgumentType]
    except (TypeError, NotImplementedError) as error:
        raise UsageError(f"{who} is a data set without a length; stack what it yields into a tensor") from error
    try:
        return torch.stack([torch.as_tensor(one[0] if isinstance(one, tuple | list) else one) for one in found])
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{who}: its data make no tensor ({reason}); make each a tensor of one shape") from error


def _count(levels: Any) -> int:
    if not isinstance(levels, int) or isinstance(levels, bool) or levels < 2:
        raise UsageError(f"levels must be a whole number, at least 2, not {levels!r}; leave it out for other data")
    return levels
