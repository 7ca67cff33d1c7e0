"""Sequences that end before their last step."""

import torch
from torch import Tensor


def padded(lengths: list[int], filler: float, steps: int) -> Tensor:
    """Sequences of given lengths [N, T, 1 + 2] of T steps, their padding of one value."""
    x = torch.rand(len(lengths), steps, 3, generator=torch.Generator().manual_seed(1)).double().round()
    for row, length in zip(x, lengths, strict=True):
        row[:, 0] = (torch.arange(steps) < length).double()
        row[length:, 1:] = filler
    return x
