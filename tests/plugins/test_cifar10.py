"""CIFAR-10 is read rightly from its archive or its files, or refused in one line."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from unibound_plugins.data_sets import cifar10
from unibound_plugins.data_sets.cifar10 import Cifar10
from unibound_plugins.models.resnet import ResNet

from unibound import UniboundError, UsageError
from unibound.data import download

NAMES = (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "_NUM_VALID", 3)


def contents() -> dict[str, bytes]:
    """Two images a file: the label, then planes of red, green and blue, row by row."""
    rng = np.random.default_rng(0)
    rows = {name: rng.integers(0, 256, (2, 3073), dtype=np.uint8) for name in NAMES}
    for row in rows.values():
        row[:, 0] = 9
    return {name: row.tobytes() for name, row in rows.items()}


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path / "cifar-10-binary.tar.gz", "w:gz") as file:
        for name, content in files.items():
            about = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            about.size = len(content)
            file.addfile(about, io.BytesIO(content))
    return path


def write(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


@pytest.mark.parametrize("put", [archive, write])
def test_levels_channels_and_splits(tmp_path: Path, put) -> None:
    files = contents()
    splits = Cifar10(folder=put(tmp_path, files)).load()
    assert [tuple(x.shape) for _, x in splits.items()] == [(7, 3, 32, 32), (3, 3, 32, 32), (2, 3, 32, 32)]
    assert splits.levels == 256
    raw = np.frombuffer(files["data_batch_2.bin"], np.uint8)
    image = (splits.train[2] * 255).round().to(torch.uint8).numpy()
    assert image[1, 5, 7] == raw[1 + 1024 + 5 * 32 + 7]  # green, row 5, column 7
    assert image[2, 31, 0] == raw[1 + 2048 + 31 * 32]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("data_batch_1.bin", b"\x01" * 3072, "rows of a label"),
        ("data_batch_1.bin", b"\xff" * 3073, "rows of a label"),  # no label is 255: an archive of CIFAR-100, or noise
        ("test_batch.bin", b"", "rows of a label"),
    ],
)
@pytest.mark.parametrize("put", [archive, write])
def test_what_is_no_such_file_is_refused(tmp_path: Path, put, name: str, content: bytes, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Cifar10(folder=put(tmp_path, contents() | {name: content})).load()


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, contents()) / "cifar-10-binary.tar.gz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UsageError, match="damaged"):
        Cifar10(folder=tmp_path).load()


def test_an_archive_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    files = contents()
    del files["test_batch.bin"]
    with pytest.raises(UsageError, match="not the archive of CIFAR-10"):
        Cifar10(folder=archive(tmp_path, files)).load()


def test_another_archive_in_the_cache_is_left_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIBOUND_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(download, "_download", lambda *_: "no connection")
    folder = tmp_path / "cifar10"
    folder.mkdir()
    path = archive(folder, contents()) / "cifar-10-binary.tar.gz"
    before = path.read_bytes()
    with pytest.raises(UniboundError, match="does not have the checksum"):
        Cifar10().load()
    assert path.read_bytes() == before


def test_channels_at_the_end_are_refused() -> None:
    with pytest.raises(UsageError, match="channels in front"):
        ResNet(maps=(4,))._sizes((32, 32, 3))
    assert ResNet(maps=(4,))._sizes((3, 32, 32)) == [(32, 32), (16, 16)]
