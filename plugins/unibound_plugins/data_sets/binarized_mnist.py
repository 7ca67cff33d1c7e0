"""MNIST with pixels sampled once, the set most published likelihoods refer to."""

import hashlib
from pathlib import Path

import attrs
import numpy as np
import torch
from torch import Tensor

from unibound import DataSet, Splits, UsageError, hookimpl
from unibound.data import read_npz
from unibound.data.download import fetch, find

_SIDE = 28
_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/binarized_mnist_{}.amat"
_CHECKSUMS = {
    "train": "sha256:ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    "valid": "sha256:1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    "test": "sha256:e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
}


_BITS = {
    "train": "727146c35424b019f3e350e1e69faa05644a0abaf787e3f4e1a9632220a13906",
    "valid": "a256ac44ae26be720fad8616a05ed6ecfd1619930d9a208379bb2a4405df5b6d",
    "test": "9fcd8da6f0fdf09b2ba30fe63a0bb784042a0de82563172530229b983e294ff2",
}
"""SHA-256 of the published bits, packed eight to a byte, whatever file they come in."""


@attrs.frozen
class BinarizedMnist(DataSet):
    """Statically binarized MNIST, 28 x 28 bits: 50000 to train, 10000 to validate, 10000 to test.

    Upright, ink is 1. The first use downloads 110 MB of text.

    Args:
        folder: a folder with `binarized_mnist.npz` or `binarized_mnist_train.amat`, `..._valid.amat` and
            `..._test.amat`, used instead of downloading.

    Source: H. Larochelle and I. Murray (2011), The Neural Autoregressive Distribution Estimator,
        https://proceedings.mlr.press/v15/larochelle11a.html, whose bits were drawn by R. Salakhutdinov and
        I. Murray (2008), On the quantitative analysis of deep belief networks.
    """

    folder: Path | None = None

    def load(self) -> Splits:
        """Read the bits [N, 28, 28]."""
        if self.folder is None:
            paths = {
                name: fetch(_URL.format(name), checksum, subfolder="binarized_mnist")
                for name, checksum in _CHECKSUMS.items()
            }
        else:
            first = find(self.folder, "binarized_mnist.npz", "binarized_mnist_train.amat")
            if first.suffix == ".npz":
                return _verify(read_npz(first), first)
            paths = {name: find(self.folder, f"binarized_mnist_{name}.amat") for name in _CHECKSUMS}
        train, valid, test = (_read_amat(paths[name]) for name in ("train", "valid", "test"))
        source = paths["train"].parent
        return _verify(Splits(train, valid, test, source=str(source)), source)


def _verify(splits: Splits, source: Path) -> Splits:
    """Refuse other bits: likelihoods of turned, inverted or differently drawn images compare with nothing."""
    for name, x in splits.items():
        if hashlib.sha256(np.packbits(x.numpy().astype(np.uint8)).tobytes()).hexdigest() != _BITS[name]:
            raise UsageError(
                f"{source}: {name} is not binarized MNIST as published (transposed, inverted, or drawn anew?); "
                "get the original files, or name these with --data FILE.npz"
            )
    return splits


def _read_amat(path: Path) -> Tensor:
    """Read lines of 784 bits, one space between two of them, as images [N, 28, 28]."""
    width = 2 * _SIDE**2  # bytes in a line: each bit is followed by a space or the end of the line
    text = np.fromfile(path, dtype=np.uint8)
    if text.size % width == 0:
        lines = text.reshape(-1, width)
        bits = lines[:, ::2] - ord("0")
        separated = (lines[:, 1:-1:2] == ord(" ")).all() and (lines[:, -1] == ord("\n")).all()
        if separated and (bits <= 1).all():
            return torch.from_numpy(bits).to(torch.float32).reshape(-1, _SIDE, _SIDE)
    raise UsageError(f"{path}: is not lines of {_SIDE**2} bits with single spaces; get the original file again")


@hookimpl
def register_data_sets(register):
    register("binarized_mnist", BinarizedMnist)
