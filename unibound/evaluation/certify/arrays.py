"""The weights of a machine from whatever file they are in: arrays, under names that mean only one thing."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unibound.data.files import read_arrays
from unibound.errors import UsageError
from unibound.settings.defaults import BITS, CATEGORIES, SPINS

NAMES = {
    "W": ("W", "weight", "weights", "weight_matrix", "components_"),
    "vbias": ("vbias", "visible_bias", "intercept_visible_"),
    "hbias": ("hbias", "hidden_bias", "intercept_hidden_"),
    "sigma": ("sigma", "scale"),
}
"""What the parts of a restricted Boltzmann machine are called: by papers, PyTorch, `rbms` and scikit-learn."""
TRANSPOSED = ("components_",)
"""Weights that are kept as [hidden, visible] by whoever calls them so."""
MACHINES = {"BBRBM": BITS, "IIRBM": SPINS, "PBRBM": CATEGORIES}
"""Units of the machines that `rbms` keeps and whose hidden units are as they are here, by its name for them."""
OF_MATLAB = ("__header__", "__version__", "__globals__")


def read_weights(
    path: Path, cure: str, unit: str = BITS, say: Callable[[str], object] = lambda said: None
) -> dict[str, np.ndarray]:
    """Arrays of a file, those with a known meaning under the name of `NAMES`, and all others under their own.

    Args:
        path: .npz, .safetensors, .mat (with scipy), .h5 as `rbms` writes it (with h5py), of which the last update is
            read, or a state dict of torch (.pt, .pth). Nothing is unpickled.
        cure: how such a file is written, for error messages.
        unit: what the visible units are asked to be, which a file may contradict.
        say: told which arrays were taken for which parts, where their names are others.

    Raises:
        UsageError: a file that is missing, damaged or of another kind, or two arrays that would mean the same.
    """
    arrays = _read_updates(path, cure, unit, say) if path.suffix.lower() in (".h5", ".hdf5") else _read(path, cure)
    return named(arrays, path, say)


def named(
    arrays: Mapping[str, Any], who: Path | str, say: Callable[[str], object] = lambda said: None
) -> dict[str, np.ndarray]:
    """Arrays, those with a known meaning under the name of `NAMES`, and all others under their own.

    Raises:
        UsageError: two arrays that would mean the same.
    """
    said = [f"{role} from {name}" for role, known in NAMES.items() for name in known if name in arrays and name != role]
    if said:
        say(f"{who}: {', '.join(said)}")
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        role = next((role for role, known in NAMES.items() if name in known), name)
        if role in found:
            both = ", ".join(one for one in arrays if one in NAMES[role])
            raise UsageError(f"{who}: {both} may each be {role}; leave one of them, under the name {role}")
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


def _read_updates(path: Path, cure: str, unit: str, say: Callable[[str], object]) -> dict[str, np.ndarray]:
    """Parameters of the last update in an archive of `rbms`: groups update_N, each with a group params."""
    if not path.is_file():
        raise UsageError(f"{path}: no such file; check the path")
    try:
        h5py: Any = importlib.import_module("h5py")
    except ImportError:
        raise UsageError(f"{path}: reading .h5 files needs h5py; pip install 'unibound[h5]'") from None

    def load() -> dict[str, Any]:
        with h5py.File(path, "r") as file:
            kind = file["model_type"][()].decode() if "model_type" in file else ""
            last = max((int(name.removeprefix("update_")) for name in file if name.startswith("update_")), default=None)
            group = file if last is None else file[f"update_{last}"]["params"]
            arrays = {name: one[()] for name, one in group.items() if isinstance(one, h5py.Dataset)}
            arrays.pop("model_type", None)
            return {"kind": kind, "last": last, "arrays": arrays}

    found = _loaded(path, cure, load)
    kind, last = found["kind"], found["last"]
    if kind and MACHINES.get(kind) != unit:
        cure = f"say --unit {MACHINES[kind]}" if kind in MACHINES else "its hidden units are none that are known here"
        raise UsageError(f"{path}: holds a {kind}, and no RBM over {unit}; {cure}")
    if last is not None:
        say(f"{path}: {kind or 'the machine'} after {last} updates, the last of those in the file")
    return found["arrays"]


def _loaded(path: Path, cure: str, load: Any) -> dict[str, Any]:
    try:
        found = load()
        return dict(found)
    except Exception as error:  # of four libraries, each of which raises half a dozen kinds
        raise UsageError(f"{path}: is damaged, or no {path.suffix} file of arrays; {cure}") from error
