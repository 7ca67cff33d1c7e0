"""From what data are made of to what a likelihood is over: levels as numbers from 0 to 1, and these as bits.

Shapes: N data, B batch, *X one datum.
"""

from collections.abc import Iterator
from typing import Literal, get_args

import attrs
import torch
from torch import Tensor

from unibound import ranks, support
from unibound.data import missing
from unibound.data.rows import Data, Rows
from unibound.data.splits import PARTS, Splits
from unibound.errors import UsageError
from unibound.support import Constraint

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


def sample_all(x: Rows, seed: int) -> Rows:
    """The same for all data [N, *X] once and for all, with a seed of its own."""
    generator = torch.Generator().manual_seed(seed)
    return x.as_bits(lambda block: sample_bits(block.cpu(), generator))


def binarize(splits: Splits, how: Binarization) -> Splits:
    """Turn grey levels into bits, as far as that is done once and for all.

    `threshold` sets what is at least one half. `static` samples each pixel once, with `STATIC_SEED`
    rather than the seed of the run, so that all runs see the same bits. `dynamic` does that to valid and
    test, and leaves train to be sampled anew in each batch (see `batches`). `none` keeps grey levels.
    Bits stay what they are under all four.

    Args:
        splits: bits, numbers from 0 to 1 or levels, on the CPU.
        how: one of the four.

    Raises:
        UsageError: another word for `how`; data that are no grey levels; bits that never vary.

    Source: dynamic binarization is that of R. Salakhutdinov and I. Murray (2008), On the quantitative
        analysis of deep belief networks, https://doi.org/10.1145/1390156.1390266.
    """
    if how not in get_args(Binarization):
        raise UsageError(f"unknown binarization {how!r}; choose one of {', '.join(get_args(Binarization))}")
    if how == "none" or support.same(splits.support, support.boolean):
        return splits
    binarized = _as_bits(splits, how)
    require_variation(binarized)
    return binarized


def _as_bits(splits: Splits, how: Binarization) -> Splits:
    splits, bits = scale(splits), {}
    if not support.same(splits.support, support.unit_interval):
        raise UsageError(
            f"{splits.source} holds {support.describe(splits.support)}, which are no grey levels and no bits; choose a "
            "likelihood of such values, or say in the file how many levels there are (an array levels)"
        )
    for seed, name in enumerate(PARTS, STATIC_SEED):  # a seed per split, so none shifts another
        if how == "threshold":
            bits[name] = splits.rows(name).as_bits(lambda x: x >= 0.5)
        elif how == "static" or name != "train":
            bits[name] = sample_all(splits.rows(name), seed)
    now = support.boolean if "train" in bits else splits.support
    return attrs.evolve(splits, **bits, support=now, levels=None if "train" in bits else splits.levels)


def scale(splits: Splits) -> Splits:
    """Levels 0 .. n - 1 as numbers from 0 to 1; other data as they are."""
    values = support.values(splits.support)
    if values is None or values[0] != 0 or len(values) < 3:
        return splits
    scaled = {name: splits.rows(name).divided(values[-1]) for name in PARTS}
    return attrs.evolve(splits, **scaled, support=support.unit_interval, levels=len(values))


def fit(splits: Splits, wanted: Constraint | None, how: Binarization | None, who: str) -> tuple[Splits, str]:
    """Bring data to what a likelihood is over, where that is no more than grey levels scaled or binarized.

    Args:
        splits: as they were loaded.
        wanted: what they are needed as; None takes them as they are.
        how: how grey levels become bits; None is at one half where bits are needed, and nothing elsewhere.
        who: what needs them, in words.
    Returns:
        The data, and what was done to them, in words; empty if nothing was.
    Raises:
        UsageError: data that cannot be brought there, a binarization of what need not be bits, or data that never vary.
    """
    require_variation(splits)
    fitted, words = bring(splits, wanted, how, who)
    if fitted is not splits:
        require_variation(fitted)
    return fitted, words


def bring(splits: Splits, wanted: Constraint | None, how: Binarization | None, who: str) -> tuple[Splits, str]:
    """The same for data that need not vary, since nothing is learned from them. See `fit`."""
    if isinstance(splits.support, support.partly):
        if how == "dynamic":
            raise UsageError("binarization dynamic is of whole data, but elements are missing; use static")
        observed, gone = missing.apart(splits)
        fitted, words = bring(observed, support.whole(wanted), how, who)
        return missing.again(fitted, gone), words
    have, needs_bits = splits.support, wanted is not None and support.same(wanted, support.boolean)
    if how not in (None, "none") and wanted is not None and not needs_bits:
        raise UsageError(
            f"binarization {how} makes bits, but {who} is over {support.describe(wanted)}; leave the binarization out"
        )
    if wanted is None or support.within(have, wanted):
        return splits, ""
    if isinstance(wanted, support.levels) and (scaled := scale(splits)).levels is not None:
        if scaled.levels != wanted.count:
            raise UsageError(
                f"{who} is over {support.describe(wanted)}, but {splits.source} has {scaled.levels}; set its levels to "
                f"{scaled.levels}"
            )
        return attrs.evolve(scaled, support=wanted), f"{_grey(splits)} kept, as steps from 0 to 1"
    if needs_bits and how != "none":
        words = {"threshold": "set to bits at one half", "static": "sampled once as bits", "dynamic": "sampled as bits"}
        chosen: Binarization = how or "threshold"
        return _as_bits(splits, chosen), f"{_grey(splits)} {words[chosen]}" + (" in each batch" * (chosen == "dynamic"))
    if not needs_bits and not support.is_discrete(wanted):
        scaled = scale(splits)
        if scaled is not splits:
            return scaled, f"{_grey(splits)} scaled to [0, 1]; bits per dimension are those of a level"
        if support.is_discrete(have):
            return (
                splits,
                f"{support.describe(have)} under a density: its likelihood compares with none of probabilities",
            )
    for name in PARTS:
        for block in splits.rows(name).blocks():
            support.require(wanted, block, f"{who}, for {name},")
    return splits, ""


def require_variation(splits: Splits) -> None:
    """Raise UsageError for training data that are all one and the same: there is nothing to learn from them."""
    x = splits.rows("train")
    if len(x) > 1 and all(bool((block == x[:1]).all()) for block in x.blocks()):
        raise UsageError(
            f"{splits.source}: all training data are the same; was a scale, or a threshold, chosen wrongly?"
        )


def _grey(splits: Splits) -> str:
    values = support.values(splits.support)
    count = splits.levels if values is None else len(values)
    return "numbers from 0 to 1" if count is None else f"{count} grey levels"


def batches(x: Data, batch_size: int, dynamic: bool = False) -> Iterator[Tensor]:
    """Go once through the data, shuffled; the last batch may be short.

    The order is drawn here and the bits batch by batch, all from torch's global generators, so that a run
    resumed with their saved state sees what it would have seen.

    Args:
        x: the training data [N, *X].
        batch_size: B, in data.
        dynamic: sample bits from the values of each batch.

    Returns:
        Batches [B, *X], on the device of x; of several ranks, the share of each, in an order that is the first's.

    Raises:
        UsageError: a batch size below one.
    """
    if batch_size < 1:
        raise UsageError(f"the batch size is {batch_size}; it must be at least 1")
    order = ranks.of_first(torch.randperm(len(x))).to(x.device)  # [N]
    rows = (x[ranks.rows(chosen)] for chosen in order.split(batch_size))
    return map(sample_bits, rows) if dynamic else rows
