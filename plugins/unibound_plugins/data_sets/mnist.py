"""MNIST and the set made to replace it, Fashion-MNIST: both are grey images in idx files."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import attrs
import numpy as np
import torch
from torch import Tensor

from unibound import DataSet, Splits, UsageError, hookimpl
from unibound.data import read_npz, scale
from unibound.data.download import fetch, find

_FILES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
_NUM_VALID = 10000
_IDX_IMAGES = 0x803  # unsigned bytes in three dimensions

_MNIST = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_MNIST_CHECKSUMS = {
    "train": "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "test": "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
}
_FASHION = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
_FASHION_CHECKSUMS = {
    "train": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "test": "md5:bef4ecab320f06d8554ea6380940ec79",
}


@attrs.frozen
class Mnist(DataSet):
    """MNIST: handwritten digits, 28 x 28 grey pixels.

    50000 to train, the last 10000 of train to validate, 10000 to test. Upright, ink is 1. The first
    use downloads 12 MB.

    Args:
        folder: a folder with `mnist.npz` or the two idx files of images, as they are or with .gz, used
            instead of downloading.

    Source: Y. LeCun, C. Cortes and C. Burges (1998), The MNIST database of handwritten digits.
    """

    folder: Path | None = None

    def load(self) -> Splits:
        """Read the grey levels [N, 28, 28]."""
        return _load("mnist", self.folder, _MNIST, _MNIST_CHECKSUMS)


@attrs.frozen
class FashionMnist(DataSet):
    """Fashion-MNIST: articles of clothing, 28 x 28 grey pixels.

    50000 to train, the last 10000 of train to validate, 10000 to test. Upright, cloth is light
    (towards 1) on a background of 0. The first use downloads 31 MB.

    Args:
        folder: a folder with `fashion_mnist.npz` or the two idx files of images, as they are or with .gz,
            used instead of downloading.

    Source: H. Xiao, K. Rasul and R. Vollgraf (2017), Fashion-MNIST: a Novel Image Dataset for Benchmarking
        Machine Learning Algorithms, https://arxiv.org/abs/1708.07747.
    """

    folder: Path | None = None

    def load(self) -> Splits:
        """Read the grey levels [N, 28, 28]."""
        return _load("fashion_mnist", self.folder, _FASHION, _FASHION_CHECKSUMS)


def _load(name: str, folder: Path | None, addresses: tuple[str, ...], checksums: dict[str, str]) -> Splits:
    """Read both files of a set from a folder, or from the cache after downloading them to it."""
    if folder is None:
        paths = {}
        for split, file in _FILES.items():
            url, *mirrors = [f"{address}{file}.gz" for address in addresses]
            paths[split] = fetch(url, checksums[split], subfolder=name, mirrors=mirrors)
    else:
        first = find(folder, f"{name}.npz", _FILES["train"], f"{_FILES['train']}.gz")
        if first.suffix == ".npz":
            return scale(read_npz(first, num_valid=_NUM_VALID))
        paths = {split: find(folder, file, f"{file}.gz") for split, file in _FILES.items()}
    train, test = (_read_idx(paths[split]) for split in ("train", "test"))
    if len(train) <= _NUM_VALID:
        raise UsageError(
            f"{paths['train']}: has {len(train)} images, of which the last {_NUM_VALID} would "
            "validate; get the original file again"
        )
    return Splits(train[:-_NUM_VALID], train[-_NUM_VALID:], test, source=str(paths["train"].parent), levels=256)


def _read_idx(path: Path) -> Tensor:
    """Read the images [N, rows, columns] of an idx file, compressed or not, with values in [0, 1]."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        magic, *shape = struct.unpack(">4I", content[:16])
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UsageError(f"{path}: is damaged; get the original file again") from error
    if magic != _IDX_IMAGES or len(content) != 16 + math.prod(shape):
        raise UsageError(f"{path}: is not a complete idx file of images; get the original file again")
    images = np.frombuffer(content, dtype=np.uint8, offset=16).reshape(shape)
    return torch.from_numpy(images.astype(np.float32)).div_(255)


@hookimpl
def register_data_sets(register):
    register("mnist", Mnist)
    register("fashion_mnist", FashionMnist)
