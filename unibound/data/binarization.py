"""Grey levels as bits, once and for all or batch by batch, and the batches a run is trained on.

Shapes: N data, B batch, *X one datum.
"""

from collections.abc import Iterator
from typing import Literal, get_args

import attrs
import torch
from torch import Tensor

from unibound.data.splits import Splits
from unibound.errors import UsageError

Binarization = Literal["threshold", "static", "dynamic", "none"]

STATIC_SEED = 20090412
"""Seed of the bits that are sampled once; one data set for everybody, whatever the seed of a run."""


def sample_bits(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw a bit for each value, one with that value as its probability; 0 and 1 stay what they are.

    Args:
        x: probabilities [..., *X] in [0, 1].
        generator: where the randomness comes from; the global one by default.

    Returns:
        Zeros and ones [..., *X], of the type of x.
    """
    uniform = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return (uniform < x).to(x.dtype)


def binarize(splits: Splits, how: Binarization) -> Splits:
    """Turn grey levels into bits, as far as that is done once and for all.

    `threshold` sets what is at least one half. `static` samples each pixel once, with `STATIC_SEED`
    rather than the seed of the run, so that all runs see the same bits. `dynamic` does that to valid and
    test, and leaves train to be sampled anew in each batch (see `batches`). `none` keeps grey levels.
    Bits stay what they are under all four.

    Args:
        splits: values in [0, 1], on the CPU.
        how: one of the four.

    Raises:
        UsageError: another word for `how`.

    Source: dynamic binarization is that of R. Salakhutdinov and I. Murray (2008), On the quantitative
        analysis of deep belief networks, https://doi.org/10.1145/1390156.1390266.
    """
    if how not in get_args(Binarization):
        raise UsageError(f"unknown binarization {how!r}; choose one of {', '.join(get_args(Binarization))}")
    if how == "none":
        return splits
    bits = {}
    for seed, (name, x) in enumerate(splits.items(), STATIC_SEED):  # a seed per split, so none shifts another
        if how == "threshold":
            bits[name] = (x >= 0.5).to(x.dtype)
        elif how == "static" or name != "train":
            bits[name] = sample_bits(x, torch.Generator().manual_seed(seed))
    return attrs.evolve(splits, **bits)


def batches(x: Tensor, batch_size: int, dynamic: bool = False) -> Iterator[Tensor]:
    """Go once through the data, shuffled; the last batch may be short.

    The order is drawn here and the bits batch by batch, all from torch's global generators, so that a run
    resumed with their saved state sees what it would have seen.

    Args:
        x: the training data [N, *X].
        batch_size: B, in data.
        dynamic: sample bits from the values of each batch.

    Returns:
        Batches [B, *X], on the device of x.

    Raises:
        UsageError: a batch size below one.
    """
    if batch_size < 1:
        raise UsageError(f"the batch size is {batch_size}; it must be at least 1")
    order = torch.randperm(len(x)).to(x.device)  # [N]
    rows = (x[chosen] for chosen in order.split(batch_size))
    return map(sample_bits, rows) if dynamic else rows
