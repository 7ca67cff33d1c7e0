"""The weights of a machine from whatever file they are in: arrays, under names that mean only one thing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unibound.data.files import read_arrays
from unibound.errors import UsageError

NAMES = {
    "W": ("W", "weight", "weights", "weight_matrix", "components_"),
    "vbias": ("vbias", "visible_bias", "intercept_visible_"),
    "hbias": ("hbias", "hidden_bias", "intercept_hidden_"),
    "sigma": ("sigma", "scale"),
}
"""What the parts of a restricted Boltzmann machine are called: by papers, PyTorch, `rbms` and scikit-learn."""
TRANSPOSED = ("components_",)
"""Weights that are kept as [hidden, visible] by whoever calls them so."""
OF_MATLAB = ("__header__", "__version__", "__globals__")


def read_weights(path: Path, cure: str, say: Callable[[str], object] = lambda said: None) -> dict[str, np.ndarray]:
    """Arrays of a file, those with a known meaning under the name of `NAMES`, and all others under their own.

    Args:
        path: .npz, .safetensors, .mat (with scipy), or a state dict of torch (.pt, .pth). Nothing is unpickled.
        cure: how such a file is written, for error messages.
        say: told which arrays were taken for which parts, where their names are others.

    Raises:
        UsageError: a file that is missing, damaged or of another kind, or two arrays that would mean the same.
    """
    arrays = _read(path, cure)
    said = [f"{role} from {name}" for role, known in NAMES.items() for name in known if name in arrays and name != role]
    if said:
        say(f"{path}: {', '.join(said)}")
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        role = next((role for role, known in NAMES.items() if name in known), name)
        if role in found:
            both = ", ".join(one for one in arrays if one in NAMES[role])
            raise UsageError(f"{path}: {both} may each be {role}; leave one of them, under the name {role}")
        found[role] = array.T if name in TRANSPOSED else array
    return found


def _read(path: Path, cure: str) -> dict[str, np.ndarray]:
    kind = path.suffix.lower()
    if kind not in (".safetensors", ".pt", ".pth", ".mat"):
        return read_arrays(path, cure)
    if not path.is_file():
        raise UsageError(f"{path}: no such file; check the path")
    if kind == ".mat":
        try:
            from scipy.io import loadmat
        except ImportError:
            raise UsageError(f"{path}: reading .mat files needs scipy; pip install 'unibound[mat]'") from None
        found = _loaded(path, cure, lambda: loadmat(path))
        return {name: array for name, array in found.items() if name not in OF_MATLAB}
    if kind == ".safetensors":
        from safetensors.numpy import load_file

        return _loaded(path, cure, lambda: load_file(path))
    found = _loaded(path, cure, lambda: torch.load(path, map_location="cpu", weights_only=True))
    found = found.get("state_dict", found)
    return {str(name): value.detach().numpy() for name, value in found.items() if isinstance(value, torch.Tensor)}


def _loaded(path: Path, cure: str, load: Any) -> dict[str, Any]:
    try:
        found = load()
        return dict(found)
    except Exception as error:  # of three libraries, each of which raises half a dozen kinds
        raise UsageError(f"{path}: is damaged, or no {path.suffix} file of arrays; {cure}") from error
