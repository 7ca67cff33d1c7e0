"""Data sets in files of the user's.

Shapes: N data, *X one datum, D pixels.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
import torch

from unibound.data.lengths import with_lengths
from unibound.data.missing import Missing, marked, splits_of, whole
from unibound.data.rows import Rows
from unibound.data.splits import PARTS, DataSet, Splits, hold_out
from unibound.data.tables import SUFFIXES, read
from unibound.errors import UsageError
from unibound.support import Constraint, integer_interval

_BESIDE = [f"{name}{what}" for what in ("mask", "lengths") for name in ("", *(f"{name}_" for name in PARTS))]
_KEYS = {name: (name, f"{name}_images") for name in ("train", "valid", "test")} | {
    name: (name,) for name in ("n_pixels", "shape", "levels", *_BESIDE)
}
_NPZ_CURE = "write it with np.savez_compressed(file, train=..., valid=..., test=...)"


@attrs.frozen
class File(DataSet):
    """A data set in a file of the user's, as `read_npz` and `tables.read` understand it.

    Args:
        path: of the file or folder.
        missing: what NaN means, or nothing in the cell of a table: `refuse`, or `nan`, an element that is missing.
    """

    path: Path
    missing: Missing = "refuse"

    def load(self) -> Splits:
        """Read the file or folder by what it is."""
        path = self.path.expanduser()
        if path.is_dir() or path.suffix in SUFFIXES:
            return read(path, self.missing)
        return read_npz(path, missing=self.missing)


def is_path(text: str, data_sets: Mapping[str, type[DataSet]]) -> bool:
    """Whether text means a file: no known name, and it looks like a path or exists."""
    path = Path(text).expanduser()
    return text not in data_sets and (path.exists() or bool(path.suffix) or path.name != text)


def read_npz(path: Path, num_valid: int | None = None, *, missing: Missing = "refuse") -> Splits:
    """Read arrays `train`, `valid` and `test`, each [N, *X], from a numpy .npz file.

    Numbers are what they are, and no type scales them: bits, spins, floats, counts. Levels from 0 to n - 1 are such
    where a scalar `levels` says so; uint8 arrays that hold both 0 and 255 are 256 grey levels. Bits may be packed with
    `np.packbits(axis=1)`: a scalar `n_pixels` says so, and an optional `shape` the event shape. `train_images` and the
    like are read too. Arrays `train_mask` and so on, of the shapes of these, are true where an element is missing.
    Arrays `train_lengths` and so on [N] say how many steps of padded sequences [N, T, *X] are there, and what is read
    has the flags of `with_lengths`. Without `valid`, every tenth datum of train is split off, since files are often
    sorted.

    Args:
        path: the file; it is never unpickled.
        num_valid: how many data at the end of train validate when there is no `valid`, where that is what a data set's
            publications do.
        missing: `nan` if NaN is an element that is missing, too.

    Raises:
        UsageError: a file that is missing, damaged, incomplete or holds something else.
    """
    splits, arrays = read_splits(path, _NPZ_CURE, ("train", "test"))
    levels = _levels(path, arrays, splits)
    if "mask" in arrays:
        raise UsageError(f"{path}: whose mask is `mask`? call it train_mask, valid_mask or test_mask")
    masks = {name: arrays[f"{name}_mask"] for name in PARTS if f"{name}_mask" in arrays}
    for name, mask in masks.items():
        if name not in splits:
            raise UsageError(f"{path}: {name}_mask is of no array {name}; leave it out")
        splits[name] = marked(splits[name], mask, f"{path}: {name}_mask")
    _flag(path, splits, arrays, levels)
    if "valid" not in splits:
        train = splits["train"]
        count = max(1, len(train) // 10) if num_valid is None else num_valid
        if len(train) <= count:
            raise UsageError(f"{path}: train holds {len(train)}, too few to split off {count}; add an array 'valid'")
        if num_valid is None:
            splits["train"], splits["valid"] = hold_out(train, count)
        else:
            splits |= {"train": train.part(slice(-count)), "valid": train.part(slice(-count, None))}
    known = {} if levels is None else {"support": levels}
    made = splits_of if masks or missing == "nan" else whole
    return made(splits, source=str(path), **known)


def _flag(path: Path, splits: dict[str, Rows], arrays: Mapping[str, np.ndarray], levels: Constraint | None) -> None:
    """Put flags before the steps of sequences whose lengths a file has: of all of its parts, or of none."""
    lengths = [name for name in arrays if name.endswith("lengths")]
    if not lengths:
        return
    wanted = {f"{name}_lengths" for name in splits}
    if set(lengths) != wanted:
        raise UsageError(f"{path}: has {', '.join(sorted(lengths))}; give {', '.join(sorted(wanted))}, and no others")
    if levels is not None:
        raise UsageError(f"{path}: levels have no flags beside them; leave the lengths out, or give bits or reals")
    for name, x in splits.items():
        splits[name] = Rows.of(with_lengths(x[:], arrays[f"{name}_lengths"], f"{path}: {name}_lengths"))


def _levels(path: Path, arrays: Mapping[str, np.ndarray], splits: Mapping[str, Rows]) -> Constraint | None:
    """The levels that a file declares, or that its bytes fill; None where the values have to speak for themselves."""
    if "levels" in arrays:
        levels = arrays["levels"]
        if levels.shape != () or levels.dtype.kind not in "iu" or levels < 2:
            raise UsageError(f"{path}: levels must be one whole number, at least 2; leave it out if data are no levels")
        return integer_interval(0, int(levels) - 1)
    return grey_levels(splits)


def grey_levels(splits: Mapping[str, Rows]) -> Constraint | None:
    """256 levels for bytes that fill their range; None where the values have to speak for themselves."""
    # Pictures are black somewhere and white somewhere. Counts and codes that happen to be kept in bytes are not.
    kept = [x.kept for x in splits.values() if x.kept.numel() and not x.packed]
    ends = {bound.item() for x in kept if x.dtype is torch.uint8 for bound in x.aminmax()}
    pictures = all(x.dtype is torch.uint8 for x in kept) and {0, 255} <= ends
    return integer_interval(0, 255) if pictures else None


def read_arrays(path: Path, cure: str, keys: Mapping[str, tuple[str, ...]] | None = None) -> dict[str, np.ndarray]:
    """Read arrays from an .npz file, and never unpickle anything.

    Args:
        path: the file.
        cure: how such a file is written, for error messages.
        keys: names under which arrays are handed over, each with the keys they may have in the file, the last first;
            by default every array under its own.

    Raises:
        UsageError: a file that is missing, damaged or no .npz.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a .npz file in it, or a data set with `folder` set to it")
    try:
        with path.open("rb") as raw:  # numpy would leave a file open that it cannot read
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise UsageError(f"{path}: holds a single array; {cure}")
            keys = keys or {key: (key,) for key in file.files}
            found = {name: key for name, known in keys.items() for key in reversed(known) if key in file}
            return {name: np.asarray(file[key]) for name, key in found.items()}
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise UsageError(f"{path}: {str(error.strerror).lower()}; check the path") from None
    except UsageError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds on a file that is not theirs
        what = "holds pickled objects" if "Object arrays" in str(error) else "is damaged, or no .npz file"
        raise UsageError(f"{path}: {what}; {cure}") from error


def read_splits(path: Path, cure: str, needed: Sequence[str]) -> tuple[dict[str, Rows], dict[str, np.ndarray]]:
    """Read arrays of data: those of `train`, `valid` and `test` that there are, and all that was read.

    Raises:
        UsageError: one that is needed is not there, or holds no numbers in rows.
    """
    arrays = read_arrays(path, cure, _KEYS)
    for name in needed:
        if name not in arrays:
            raise UsageError(f"{path}: no array {name!r} among {', '.join(arrays) or 'none'}; {cure}")
    found = {name: arrays[name] for name in PARTS if name in arrays}
    for name, x in found.items():
        if x.dtype.kind not in "buif":
            raise UsageError(f"{path}: {name} holds {x.dtype}, not numbers; store uint8 or float32")
        if x.ndim < 2:
            raise UsageError(f"{path}: {name} has shape {list(x.shape)}; it must be [count, pixels...]")
    if "n_pixels" in arrays:
        return {name: _packed(f"{path}: {name}", x, arrays) for name, x in found.items()}, arrays
    return {name: Rows.of(x) for name, x in found.items()}, arrays


def _packed(where: str, packed: np.ndarray, arrays: Mapping[str, np.ndarray]) -> Rows:
    """Packed bits, uint8 [N, ceil(D / 8)], as data [N, *X]."""
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
    return Rows(torch.from_numpy(np.ascontiguousarray(packed)), tuple(shape.tolist()), packed=True)
