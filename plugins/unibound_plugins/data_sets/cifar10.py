"""CIFAR-10: small color images, from the archive of plain bytes, so that nothing is unpickled."""

import tarfile
import zlib
from pathlib import Path

import attrs
import numpy as np

from unibound import DataSet, Splits, UsageError, hookimpl
from unibound.data.download import fetch, find
from unibound.data.rows import Rows

_ARCHIVE = "cifar-10-binary.tar.gz"
_URL = f"https://www.cs.toronto.edu/~kriz/{_ARCHIVE}"
_CHECKSUM = "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
_INSIDE = "cifar-10-batches-bin"
_TRAIN = tuple(f"data_batch_{n}.bin" for n in range(1, 6))
_FILES = (*_TRAIN, "test_batch.bin")
_SHAPE = (3, 32, 32)
_ROW = 1 + 3 * 32 * 32  # a label, then the red, the green and the blue pixels
_NUM_VALID = 5000


@attrs.frozen
class Cifar10(DataSet):
    """CIFAR-10: photographs of animals and vehicles, 3 x 32 x 32 levels from 0 to 255.

    45000 to train, the last 5000 of train to validate, 10000 to test. Channels first: red, green, blue. The first use
    downloads 170 MB.

    Args:
        folder: a folder with `cifar-10-binary.tar.gz`, or with the six files of it, used instead of downloading.

    Source: A. Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images.
    """

    folder: Path | None = None

    def load(self) -> Splits:
        """Read the levels [N, 3, 32, 32], from 0 to 1."""
        if self.folder is None:
            path = fetch(_URL, _CHECKSUM, subfolder="cifar10")
        else:
            path = find(self.folder, _ARCHIVE, _FILES[0])
        contents = _unpack(path) if path.suffix == ".gz" else {name: _read(path.parent, name) for name in _FILES}
        images = {name: _images(path, name, content) for name, content in contents.items()}
        train, test = np.concatenate([images[name] for name in _TRAIN]), images[_FILES[-1]]
        if len(train) <= _NUM_VALID:
            raise UsageError(
                f"{path.parent}: has {len(train)} images to train, of which the last {_NUM_VALID} would validate; "
                "get the original files again"
            )
        parts = (train[:-_NUM_VALID], train[-_NUM_VALID:], test)
        rows = (Rows.of(part).divided(255) for part in parts)  # bytes until they are read
        return Splits(*rows, source=str(path), levels=256)


def _unpack(path: Path) -> dict[str, bytes]:
    """The files of the archive by name; none is written to the disk."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            return {name: _required(archive.extractfile(f"{_INSIDE}/{name}")) for name in _FILES}
    except (OSError, EOFError, KeyError, zlib.error, tarfile.TarError) as error:
        raise UsageError(f"{path}: is damaged, or not the archive of CIFAR-10; get the original file again") from error


def _required(member) -> bytes:
    if member is None:
        raise KeyError("a folder in the place of a file")
    return member.read()


def _read(folder: Path, name: str) -> bytes:
    return find(folder, name).read_bytes()


def _images(path: Path, name: str, content: bytes) -> np.ndarray:
    """The images [N, 3, 32, 32] of one file; labels, which stand before each, are from 0 to 9."""
    rows = np.frombuffer(content, np.uint8)
    if rows.size == 0 or rows.size % _ROW or (rows[::_ROW] > 9).any():
        raise UsageError(f"{path}: {name} is not rows of a label and 3 x 32 x 32 bytes; get the original file again")
    return rows.reshape(-1, _ROW)[:, 1:].reshape(-1, *_SHAPE)


@hookimpl
def register_data_sets(register):
    register("cifar10", Cifar10)
