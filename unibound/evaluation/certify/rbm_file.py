"""Anybody's RBM, and the data to judge it by, from numpy files."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unibound.data.files import read_arrays, read_splits
from unibound.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.settings.defaults import rbm

WEIGHTS = ("W", "vbias", "hbias")
_CURE = "write it with np.savez(file, W=..., vbias=..., hbias=...), W as [visible, hidden]"


def read_rbm(path: Path) -> EnergyPrior:
    """Read W [V, H], vbias [V] and hbias [H] as an RBM.

    Raises:
        UsageError: an array that is missing, of the wrong shape, or not finite.
    """
    arrays = read_arrays(path, _CURE)
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
    prior: Any = rbm()
    return prior.from_weights(*tensors)


def read_data(path: Path) -> tuple[Tensor, Tensor | None]:
    """Read `test` [N, *X], and `train` where there is one, as float32.

    Raises:
        UsageError: no test data, or data that are no numbers.
    """
    cure = "write it with np.savez(file, test=...), optionally train=..., bits as [N, pixels...]"
    splits, _ = read_splits(path, cure, ("test",))
    found = {name: x[:] for name, x in splits.items()}
    for name, x in found.items():
        if not len(x):
            raise UsageError(f"{path}: {name} is empty; {cure}")
    return found["test"], found.get("train")
