"""Data sets by name and by file, their binarization, and the batches a run is trained on.

Shapes: N data, B batch, *X one datum, D pixels. Every value is in [0, 1], ink = 1, images upright.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

import attrs
import numpy as np
import torch
from torch import Tensor

from unibound.errors import UsageError

Binarization = Literal["threshold", "static", "dynamic", "none"]

STATIC_SEED = 20090412
"""Seed of the bits that are sampled once; one data set for everybody, whatever the seed of a run."""

_KEYS = {name: (name, f"{name}_images") for name in ("train", "valid", "test")} | {
    name: (name,) for name in ("n_pixels", "shape")
}
_NPZ_CURE = "write it with np.savez_compressed(file, train=..., valid=..., test=...)"


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


@attrs.frozen
class File(DataSet):
    """A data set in a file of the user's, as `read_npz` understands it."""

    path: Path

    def load(self) -> Splits:
        """Read the file."""
        return read_npz(self.path.expanduser())


def is_path(text: str, data_sets: Mapping[str, type[DataSet]]) -> bool:
    """Whether text means a file: no known name, and it looks like a path or exists."""
    path = Path(text).expanduser()
    return text not in data_sets and (path.exists() or bool(path.suffix) or path.name != text)


def read_npz(path: Path, num_valid: int | None = None) -> Splits:
    """Read arrays `train`, `valid` and `test`, each [N, *X], from a numpy .npz file.

    Numbers may be 0/1 of any type, floats in [0, 1], or uint8 grey levels, which are divided by 255 as
    soon as one of them exceeds 1. Bits may be packed with `np.packbits(axis=1)`: a scalar `n_pixels`
    says so, and an optional `shape` the event shape. `train_images` and the like are read too. Without
    `valid`, the last part of train is split off.

    Args:
        path: the file; it is never unpickled.
        num_valid: how many data to split off when there is no `valid`; a tenth of train by default.

    Raises:
        UsageError: a file that is missing, damaged, incomplete or holds something else.
    """
    arrays = _read_arrays(path)
    splits = {name: arrays[name] for name in ("train", "valid", "test") if name in arrays}
    if "n_pixels" in arrays:
        splits = {name: _unpack(f"{path}: {name}", x, arrays) for name, x in splits.items()}
    for name, x in splits.items():
        if x.dtype.kind not in "buif":
            raise UsageError(f"{path}: {name} holds {x.dtype}, not numbers; store uint8 or float32")
        if x.ndim < 2:
            raise UsageError(f"{path}: {name} has shape {list(x.shape)}; it must be [count, pixels...]")
    if "valid" not in splits:
        train = splits["train"]
        count = max(1, len(train) // 10) if num_valid is None else num_valid
        if len(train) <= count:
            raise UsageError(f"{path}: train holds {len(train)}, too few to split off {count}; add an array 'valid'")
        splits |= {"train": train[:-count], "valid": train[-count:]}
    # One scale for the whole file: a grey split may happen to hold no level above 1.
    grey = any(x.dtype == np.uint8 and x.size and x.max() > 1 for x in splits.values())
    tensors = {name: _to_unit(x, grey) for name, x in splits.items()}
    return Splits(**tensors, source=str(path))


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays that matter, under the names train, valid, test, n_pixels and shape."""
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a .npz file in it, or a data set with `folder` set to it")
    try:
        with path.open("rb") as raw:  # numpy would leave a file open that it cannot read
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise UsageError(f"{path}: holds a single array; {_NPZ_CURE}")
            found = {name: key for name, keys in _KEYS.items() for key in reversed(keys) if key in file}
            for name in ("train", "test"):
                if name not in found:
                    raise UsageError(f"{path}: no array {name!r} among {file.files}; {_NPZ_CURE}")
            return {name: np.asarray(file[key]) for name, key in found.items()}
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise UsageError(f"{path}: {str(error.strerror).lower()}; check the path") from None
    except UsageError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds on a file that is not theirs
        what = "holds pickled objects" if "Object arrays" in str(error) else "is damaged, or no .npz file"
        raise UsageError(f"{path}: {what}; {_NPZ_CURE}") from error


def _unpack(where: str, packed: np.ndarray, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Unpack the bits of uint8 rows [N, ceil(D / 8)] into [N, *X]."""
    n_pixels = arrays["n_pixels"]
    if n_pixels.shape != () or n_pixels.dtype.kind not in "iu" or n_pixels < 1:
        raise UsageError(f"{where}: n_pixels must be one positive integer; leave it out if bits are not packed")
    width = (int(n_pixels) + 7) // 8
    if packed.dtype != np.uint8 or packed.shape[1:] != (width,):
        raise UsageError(
            f"{where} is {packed.dtype} {list(packed.shape)}, but {n_pixels} packed pixels are "
            f"uint8 [N, {width}]; pack with np.packbits(bits, axis=1), or leave n_pixels out"
        )
    shape = arrays.get("shape", n_pixels).ravel()
    if shape.dtype.kind not in "iu" or (shape < 1).any() or math.prod(shape.tolist()) != n_pixels:
        raise UsageError(
            f"{where}: an image of shape {shape.tolist()} has not {n_pixels} pixels; mend shape or n_pixels"
        )
    return np.unpackbits(packed, axis=1, count=int(n_pixels)).reshape(-1, *shape.tolist())


def _to_unit(x: np.ndarray, grey: bool) -> Tensor:
    """Make float32 of numbers, grey levels of a byte divided by 255."""
    values = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    return values.div_(255) if grey and x.dtype == np.uint8 else values


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
