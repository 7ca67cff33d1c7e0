"""Data some of whose elements are missing, which NaN stands for.

Shapes: N data, *X one datum.
"""

from collections.abc import Mapping
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from unibound import support
from unibound.data.rows import Rows
from unibound.data.splits import PARTS, Splits
from unibound.errors import UsageError

Missing = Literal["refuse", "nan"]
"""What NaN means: a mistake, or an element that is missing."""


def marked(x: Rows, mask: Any, who: str) -> Rows:
    """Data [N, *X] whose elements are missing where a mask of the same shape is true.

    Raises:
        UsageError: a mask of another shape, or of other values than true and false.
    """
    gone = torch.as_tensor(mask)
    if tuple(gone.shape) != tuple(x.shape):
        raise UsageError(f"{who} has shape {list(gone.shape)}, its data {list(x.shape)}; mark each element")
    if not ((gone == 0) | (gone == 1)).all():
        raise UsageError(f"{who} holds other values than true and false; mark what is missing as true")
    return x if not gone.any() else Rows.of(x[:].masked_fill(gone.bool().to(x.device), torch.nan))


def whole(parts: Mapping[str, Rows], **about: Any) -> Splits:
    """Three parts in which nothing may be missing."""
    return Splits(*(parts[name] for name in PARTS), **about)


def splits_of(parts: Mapping[str, Rows], **about: Any) -> Splits:
    """Three parts in which NaN is what is missing; as any others where nothing is.

    Raises:
        UsageError: as of `Splits`, of what was observed; or training data of which nothing was.
    """
    gone = {name: x[:].isnan() for name, x in parts.items() if x.kept.is_floating_point()}
    if not any(mask.any() for mask in gone.values()):
        return whole(parts, **about)
    observed = parts["train"][:][~gone["train"]] if "train" in gone else parts["train"][:].flatten()
    if not len(observed):
        raise UsageError(f"{about.get('source', 'data')}: nothing of train was observed")
    # An observed value stands where one is missing, for as long as it takes to see what values are made of.
    stand_in = observed[0].item()
    filled = {name: Rows.of(x[:].masked_fill(gone[name], stand_in)) if name in gone else x for name, x in parts.items()}
    return again(whole(filled, **about), gone)


def apart(splits: Splits) -> tuple[Splits, dict[str, Tensor]]:
    """Data that are whole, with an observed value where one was missing, and where that is [N, *X]."""
    gone = {name: splits.rows(name)[:].isnan() for name in PARTS}
    stand_in = splits.rows("train")[:][~gone["train"]][0].item()
    filled = {name: Rows.of(splits.rows(name)[:].masked_fill(gone[name], stand_in)) for name in PARTS}
    return attrs.evolve(splits, **filled, support=support.whole(splits.support)), gone


def again(splits: Splits, gone: Mapping[str, Tensor]) -> Splits:
    """The inverse of `apart`."""
    found = {name: Rows.of(splits.rows(name)[:].masked_fill(mask, torch.nan)) for name, mask in gone.items()}
    return attrs.evolve(splits, **found, support=support.partly(splits.support))


def share(x: Rows) -> float:
    """Which part of all elements is missing."""
    counts = [block.isnan().sum().item() for block in x.blocks()] if x.kept.is_floating_point() else [0]
    return sum(counts) / max(1, len(x) * x.shape[1:].numel())
