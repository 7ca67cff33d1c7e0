"""OMNIGLOT and the Caltech 101 silhouettes: both are MATLAB files of 28 x 28 images, column by column."""

from pathlib import Path

import attrs
import numpy as np
import torch
from torch import Tensor

from unibound import DataSet, Splits, UsageError, hookimpl
from unibound.data import read_npz
from unibound.data.download import fetch, find

_SIDE = 28
_OMNIGLOT_URL = "https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/chardata.mat"
_OMNIGLOT_CHECKSUM = "git:016a3536ffe5e1d38e42563a18d7a78bfaf643ec"
_OMNIGLOT_VALID = 1345
_CALTECH_URL = "https://people.cs.umass.edu/~marlin/data/caltech101_silhouettes_28_split1.mat"
_CALTECH_CHECKSUM = "sha256:eb6735e8d84b1850fabc5590124aab1755e90c9fd28123584324398405e1e42a"


@attrs.frozen
class Omniglot(DataSet):
    """OMNIGLOT: characters of 50 alphabets, 28 x 28 grey pixels.

    23000 to train, 1345 to validate, 8070 to test. Upright, ink is 1. Train and valid are the shuffle and
    split of the IWAE paper's code. In the file the pixels of an image run down its columns; some loaders
    leave them transposed. Needs scipy.

    Args:
        folder: a folder with `omniglot.npz` or `chardata.mat`, used instead of downloading.

    Source: Y. Burda, R. Grosse and R. Salakhutdinov (2016), Importance Weighted Autoencoders,
        https://arxiv.org/abs/1509.00519, after B. Lake, R. Salakhutdinov and J. Tenenbaum (2015).
    """

    folder: Path | None = None

    def load(self) -> Splits:
        """Read the grey levels [N, 28, 28]."""
        path = _locate("omniglot", self.folder, _OMNIGLOT_URL, _OMNIGLOT_CHECKSUM)
        if path.suffix == ".npz":
            return read_npz(path, num_valid=_OMNIGLOT_VALID)
        data, test = (_upright(path, x.T) for x in _read_mat(path, "data", "testdata"))
        if len(data) <= _OMNIGLOT_VALID:
            raise UsageError(f"{path}: data has {len(data)} images; get the original file again")
        order = torch.from_numpy(np.random.RandomState(123).permutation(len(data)))
        data = data[order]
        return Splits(data[:-_OMNIGLOT_VALID], data[-_OMNIGLOT_VALID:], test, source=str(path))


@attrs.frozen
class Caltech101Silhouettes(DataSet):
    """Outlines of the objects of Caltech 101, 28 x 28 bits.

    4100 to train, 2264 to validate, 2307 to test. Upright, the object is 1; the file has the background 1,
    and pixels that run down the columns. Needs scipy.

    Args:
        folder: a folder with `caltech101_silhouettes.npz` or `caltech101_silhouettes_28_split1.mat`, used
            instead of downloading.

    Source: B. Marlin, K. Swersky, B. Chen and N. de Freitas (2010), Inductive Principles for Restricted
        Boltzmann Machine Learning, https://proceedings.mlr.press/v9/marlin10a.html.
    """

    folder: Path | None = None

    def load(self) -> Splits:
        """Read the bits [N, 28, 28]."""
        path = _locate("caltech101_silhouettes", self.folder, _CALTECH_URL, _CALTECH_CHECKSUM)
        if path.suffix == ".npz":
            return read_npz(path)
        train, valid, test = (1 - _upright(path, x) for x in _read_mat(path, "train_data", "val_data", "test_data"))
        return Splits(train, valid, test, source=str(path))


def _locate(name: str, folder: Path | None, url: str, checksum: str) -> Path:
    """Find the one file of a set in a folder, or in the cache after downloading it to it."""
    if folder is None:
        return fetch(url, checksum, subfolder=name)
    return find(folder, f"{name}.npz", url.rsplit("/", 1)[-1])


def _read_mat(path: Path, *names: str) -> list[np.ndarray]:
    """Read the named arrays of a MATLAB file."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise UsageError(f"{path}: MATLAB files need scipy; pip install 'unibound[mat]'") from None
    try:
        file = loadmat(path, variable_names=names)
        return [np.asarray(file[name], dtype=np.float32) for name in names]
    except KeyError as error:
        raise UsageError(f"{path}: has no array {error}; get the original file again") from None
    except Exception as error:  # scipy raises a dozen kinds on a file that is not MATLAB's
        raise UsageError(f"{path}: is damaged, or no MATLAB 5 file; get the original file again") from error


def _upright(path: Path, rows: np.ndarray) -> Tensor:
    """Make images [N, 28, 28] of rows [N, 784] of pixels that run down the columns."""
    if rows.ndim != 2 or rows.shape[1] != _SIDE**2:
        raise UsageError(
            f"{path}: an array is {list(rows.shape)}, not [count, {_SIDE**2}]; get the original file again"
        )
    return torch.from_numpy(rows).reshape(-1, _SIDE, _SIDE).transpose(1, 2).contiguous()


@hookimpl
def register_data_sets(register):
    register("omniglot", Omniglot)
    register("caltech101_silhouettes", Caltech101Silhouettes)
