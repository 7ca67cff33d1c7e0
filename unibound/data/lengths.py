"""Sequences of different lengths, as data of one shape: a flag before each step says whether it is there.

Shapes: N data, T steps, *X one step of F numbers.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unibound.errors import UsageError


def with_lengths(x: Any, lengths: Any, who: str = "lengths") -> Tensor:
    """Put a flag before each step of sequences: 1 where it is there, and 0 where it is padding, all of which is 0.

    Args:
        x: sequences [N, T, *X], padded to one length.
        lengths: of each, from 1 to T [N].
        who: what errors call the lengths.
    Returns:
        Data [N, T, 1 + F] of the dtype of x, as recurrent models with flags take them.
    Raises:
        UsageError: lengths that are no whole numbers from 1 to T, or not one for each sequence.
    """
    values, array = torch.as_tensor(x), np.asarray(lengths)
    if array.dtype.kind not in "iuf":
        raise UsageError(f"{who} hold {array.dtype}, not whole numbers; give how many steps of each sequence are there")
    counts = torch.from_numpy(array.astype(np.float64))
    if values.dim() < 2:
        raise UsageError(f"{who} are of sequences [N, T, ...], but the data are {list(values.shape)}; leave them out")
    num_data, steps = values.shape[:2]
    if tuple(counts.shape) != (num_data,):
        raise UsageError(f"{who} have shape {list(counts.shape)}, not [{num_data}]; give one for each sequence")
    wrong = counts[~((counts >= 1) & (counts <= steps) & (counts == counts.round()))]
    if len(wrong):
        raise UsageError(
            f"{who} hold {wrong[0].item():g}, but a sequence has from 1 to {steps} steps; mend them, or pad to more"
        )
    there = torch.arange(steps) < counts.unsqueeze(1)  # [N, T]
    flat = values.reshape(num_data, steps, -1)
    kept = torch.where(there.unsqueeze(-1), flat, torch.zeros((), dtype=flat.dtype))  # NaN in padding goes, too
    return torch.cat([there.unsqueeze(-1).to(flat.dtype), kept], -1)
