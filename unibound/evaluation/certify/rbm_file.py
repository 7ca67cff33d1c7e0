"""Anybody's RBM, and the data to judge it by, from numpy files."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unibound.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.registry import registries

WEIGHTS = ("W", "vbias", "hbias")
_CURE = "write it with np.savez(file, W=..., vbias=..., hbias=...), W as [visible, hidden]"


def read_rbm(path: Path) -> EnergyPrior:
    """Read W [V, H], vbias [V] and hbias [H] as an RBM.

    Raises:
        UsageError: an array that is missing, of the wrong shape, or not finite.
    """
    arrays = _read(path, _CURE)
    for name in WEIGHTS:
        if name not in arrays:
            raise UsageError(f"{path}: no array {name!r} among {', '.join(arrays) or 'none'}; {_CURE}")
    weight, visible, hidden = (np.squeeze(arrays[name]) if name != "W" else arrays[name] for name in WEIGHTS)
    if weight.ndim != 2 or visible.shape != weight.shape[:1] or hidden.shape != weight.shape[1:]:
        cure = "transpose W" if weight.shape == (hidden.size, visible.size) else _CURE
        shapes = f"W {list(weight.shape)}, vbias {list(visible.shape)} and hbias {list(hidden.shape)}"
        raise UsageError(f"{path}: {shapes} do not fit; {cure}")
    tensors = [torch.from_numpy(array.astype(np.float64)) for array in (weight, visible, hidden)]
    for name, tensor in zip(WEIGHTS, tensors, strict=True):
        if not tensor.float().isfinite().all():
            raise UsageError(f"{path}: {name} holds values that overflowed or are not numbers")
    rbm: Any = registries()["prior"]["rbm"]
    return rbm.from_weights(*tensors)


def read_data(path: Path) -> tuple[Tensor, Tensor | None]:
    """Read `test` [N, *X], and `train` where there is one, as float32.

    Raises:
        UsageError: no test data, or data that are no numbers.
    """
    cure = "write it with np.savez(file, test=...), optionally train=..., bits as [N, pixels...]"
    arrays = _read(path, cure)
    if "test" not in arrays:
        raise UsageError(f"{path}: no array 'test' among {', '.join(arrays) or 'none'}; {cure}")
    found = {}
    for name in ("test", "train"):
        if name in arrays:
            x = arrays[name]
            if "n_pixels" in arrays and x.ndim == 2 and x.dtype == np.uint8:
                x = np.unpackbits(x, axis=1, count=int(arrays["n_pixels"]))
            if x.dtype.kind not in "buif" or x.ndim < 2 or not len(x):
                raise UsageError(f"{path}: {name} is {x.dtype} {list(x.shape)}; {cure}")
            found[name] = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    return found["test"], found.get("train")


def _read(path: Path, cure: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise UsageError(f"{path}: holds a single array; {cure}")
            return {name: np.asarray(file[name]) for name in file.files}
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"{path}: {str(error.strerror or error).lower()}; check the path") from None
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds on a file that is not theirs
        raise UsageError(f"{path}: is damaged, or no .npz file of plain arrays; {cure}") from error
