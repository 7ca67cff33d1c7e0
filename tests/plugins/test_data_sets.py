"""The built-in data sets, read from small files in the original formats, and real ones where they are."""

import gzip
import hashlib
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from unibound_plugins.data_sets.binarized_mnist import BinarizedMnist
from unibound_plugins.data_sets.digits import Digits
from unibound_plugins.data_sets.matlab import Caltech101Silhouettes, Omniglot
from unibound_plugins.data_sets.mnist import FashionMnist, Mnist

from unibound import UniboundError, UsageError
from unibound.data.download import digest

REMOTE = [BinarizedMnist, Mnist, FashionMnist, Omniglot, Caltech101Silhouettes]

# An upright letter L: no flip, transposition or change of polarity leaves it what it is.
LETTER = np.zeros((28, 28), dtype=np.uint8)
LETTER[3:20, 5] = 1
LETTER[19, 5:12] = 1


def assert_upright(splits, *counts):
    """Every image is the letter, with the numbers of images expected."""
    for (_, x), count in zip(splits.items(), counts, strict=True):
        assert x.shape == (count, 28, 28)
        assert (x == torch.from_numpy(LETTER)).all()


def letters(count, ink=1):
    return np.broadcast_to(LETTER * np.uint8(ink), (count, 28, 28))


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """An empty cache, and no way to the net."""
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    monkeypatch.setenv("UNIBOUND_DATA_HOME", str(tmp_path / "home"))


def write_amat(path, images):
    """Write lines of digits with single spaces."""
    text = np.full((len(images), 2 * 784), ord(" "), dtype=np.uint8)
    text[:, ::2] = images.reshape(-1, 784) + ord("0")
    text[:, -1] = ord("\n")
    path.write_bytes(text.tobytes())


def write_idx(path, images):
    """Write an idx file, compressed where the name says so."""
    content = struct.pack(">4I", 0x803, *images.shape) + images.tobytes()
    path.write_bytes(gzip.compress(content, 1, mtime=0) if path.suffix == ".gz" else content)


def save_mat(path, **arrays):
    pytest.importorskip("scipy.io").savemat(path, arrays)


def columns(images):
    """Lay the pixels of each image out column by column [N, 784]."""
    return np.stack([picture.ravel(order="F") for picture in images])


class TestDigits:
    def test_splits(self):
        splits = Digits().load()
        assert [len(x) for _, x in splits.items()] == [1437, 180, 180]
        assert splits.event_shape == (8, 8)
        assert splits.train.unique().tolist() == [level / 16 for level in range(17)]

    def test_are_those_of_scikit_learn(self, frozen):
        original = pytest.importorskip("sklearn.datasets").load_digits()
        labeled = np.column_stack([original.images.reshape(1797, 64), original.target])
        ours = [
            np.column_stack([frozen[name].reshape(-1, 64), frozen[f"{name}_labels"]])
            for name in ("train", "valid", "test")
        ]
        assert sorted(map(tuple, np.concatenate(ours))) == sorted(map(tuple, labeled))

    def test_every_class_is_in_every_split_alike(self, frozen):
        for name, tenths in (("train", 8), ("valid", 1), ("test", 1)):
            counts = np.bincount(frozen[f"{name}_labels"], minlength=10)
            assert abs(counts - tenths * 17.97).max() < 5

    @pytest.fixture
    def frozen(self):
        with np.load(Path(sys.modules[Digits.__module__].__file__).with_name("digits.npz")) as file:
            return dict(file)


class TestBinarizedMnist:
    @pytest.fixture
    def folder(self, tmp_path):
        for count, name in enumerate(("train", "valid", "test"), 1):
            write_amat(tmp_path / f"binarized_mnist_{name}.amat", letters(count))
        return tmp_path

    @pytest.fixture(autouse=True)
    def published(self, monkeypatch):
        """As if one, two and three letters were the published set."""
        bits = {
            name: hashlib.sha256(np.packbits(letters(count))).hexdigest()
            for count, name in enumerate(("train", "valid", "test"), 1)
        }
        monkeypatch.setattr(sys.modules[BinarizedMnist.__module__], "_BITS", bits)

    def test_amat(self, folder):
        assert_upright(BinarizedMnist(folder).load(), 1, 2, 3)

    def test_npz(self, tmp_path):
        splits = {
            name: np.packbits(letters(count).reshape(count, 784), axis=1)
            for count, name in enumerate(("train", "valid", "test"), 1)
        }
        np.savez(tmp_path / "binarized_mnist.npz", **splits, n_pixels=784, shape=[28, 28])
        assert_upright(BinarizedMnist(tmp_path).load(), 1, 2, 3)

    @pytest.mark.parametrize(
        "change", [lambda x: x.swapaxes(1, 2), lambda x: x[:, ::-1], lambda x: 1 - x, lambda x: x[:-1]]
    )
    def test_other_bits(self, folder, change):
        write_amat(folder / "binarized_mnist_test.amat", change(letters(3)))
        with pytest.raises(UsageError, match="test is not binarized MNIST as published"):
            BinarizedMnist(folder).load()

    @pytest.mark.parametrize(
        "damage",
        [
            lambda text: text[:-1],
            lambda text: text.replace(b" ", b",", 1),
            lambda text: text.replace(b"0", b"2", 1),
            lambda text: b"\x89" + text[1:],
            lambda text: text.replace(b"\n", b" ", 1),
        ],
    )
    def test_a_damaged_amat(self, folder, damage):
        path = folder / "binarized_mnist_valid.amat"
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(UsageError, match=r"valid.amat: is not lines of 784 bits"):
            BinarizedMnist(folder).load()

    def test_an_empty_amat(self, folder):
        (folder / "binarized_mnist_valid.amat").write_bytes(b"")
        with pytest.raises(UsageError, match="valid is empty"):
            BinarizedMnist(folder).load()


@pytest.mark.parametrize("data_set", [Mnist, FashionMnist])
class TestIdx:
    @pytest.mark.parametrize("suffix", ["", ".gz"])
    def test_idx(self, tmp_path, data_set, suffix):
        write_idx(tmp_path / f"train-images-idx3-ubyte{suffix}", letters(10003, ink=255))
        write_idx(tmp_path / f"t10k-images-idx3-ubyte{suffix}", letters(2, ink=255))
        assert_upright(data_set(tmp_path).load(), 3, 10000, 2)

    def test_npz(self, tmp_path, data_set):
        name = {Mnist: "mnist", FashionMnist: "fashion_mnist"}[data_set]
        arrays = {"train_images": letters(10003, ink=255), "test_images": letters(2, ink=255)}
        np.savez(tmp_path / f"{name}.npz", **arrays)
        assert_upright(data_set(tmp_path).load(), 3, 10000, 2)

    @pytest.mark.parametrize(
        ("suffix", "keep", "reason"),
        [
            *(("", keep, "is damaged") for keep in (0, 3, 12)),
            *(("", keep, "is not a complete idx file") for keep in (20, 100, 1000)),
            *((".gz", keep, "is damaged") for keep in (0, 3, 12, 20, 100, 1000)),
        ],
    )
    def test_a_truncated_file(self, tmp_path, data_set, suffix, keep, reason):
        for name in ("train", "t10k"):
            path = tmp_path / f"{name}-images-idx3-ubyte{suffix}"
            write_idx(path, np.random.RandomState(0).randint(256, size=(2, 28, 28), dtype=np.uint8))
            path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(UsageError, match=f"train-images-idx3-ubyte{suffix}: {reason}"):
            data_set(tmp_path).load()

    def test_too_few_images(self, tmp_path, data_set):
        for name in ("train", "t10k"):
            write_idx(tmp_path / f"{name}-images-idx3-ubyte", letters(2))
        with pytest.raises(UsageError, match=r"train-images-idx3-ubyte: has 2 images"):
            data_set(tmp_path).load()


class TestMatlab:
    def test_omniglot(self, tmp_path):
        save_mat(tmp_path / "chardata.mat", data=columns(letters(1347)).T / 1.0, testdata=columns(letters(3)).T)
        assert_upright(Omniglot(tmp_path).load(), 2, 1345, 3)

    def test_omniglot_is_shuffled_once(self, tmp_path):
        data = np.repeat(np.linspace(0, 1, 1400)[None], 784, axis=0)
        save_mat(tmp_path / "chardata.mat", data=data, testdata=data[:, :1])
        first, second = (Omniglot(tmp_path).load() for _ in range(2))
        assert torch.equal(first.train, second.train)
        levels = torch.cat([first.train, first.valid])[:, 0, 0]
        assert not torch.equal(levels, levels.sort().values)
        torch.testing.assert_close(levels.sort().values, torch.linspace(0, 1, 1400))

    def test_caltech(self, tmp_path):
        names = ("train_data", "val_data", "test_data")
        arrays = {name: 1 - columns(letters(count)) for count, name in enumerate(names, 1)}
        save_mat(tmp_path / "caltech101_silhouettes_28_split1.mat", **arrays)
        assert_upright(Caltech101Silhouettes(tmp_path).load(), 1, 2, 3)

    def test_npz(self, tmp_path):
        np.savez(tmp_path / "omniglot.npz", train=letters(1347), test=letters(3))
        assert_upright(Omniglot(tmp_path).load(), 2, 1345, 3)

    @pytest.mark.parametrize(
        ("arrays", "reason"),
        [
            ({"data": np.eye(784)}, "has no array 'testdata'"),
            ({"data": np.ones((2, 784)), "testdata": np.ones((2, 784))}, r"an array is \[784, 2\], not"),
            ({"data": np.ones((784, 2)), "testdata": np.ones((784, 2))}, "data has 2 images"),
            ({"data": np.array(["x"], object), "testdata": np.eye(784)}, "is damaged"),
        ],
    )
    def test_other_arrays(self, tmp_path, arrays, reason):
        save_mat(tmp_path / "chardata.mat", **arrays)
        with pytest.raises(UsageError, match=f"chardata.mat: {reason}"):
            Omniglot(tmp_path).load()

    @pytest.mark.parametrize("keep", [0, 3, 100, 140, 1000])
    def test_a_truncated_file(self, tmp_path, keep):
        path = tmp_path / "chardata.mat"
        save_mat(path, data=np.eye(784), testdata=np.eye(784))
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(UsageError, match=r"chardata.mat: is damaged") as caught:
            Omniglot(tmp_path).load()
        assert "\n" not in str(caught.value)

    def test_without_scipy(self, tmp_path, monkeypatch):
        (tmp_path / "chardata.mat").touch()
        monkeypatch.setitem(sys.modules, "scipy.io", None)
        with pytest.raises(UsageError, match=r"pip install 'unibound\[mat\]'"):
            Omniglot(tmp_path).load()


@pytest.mark.parametrize("data_set", REMOTE)
class TestRemote:
    def test_offline_is_one_line_with_three_ways_out(self, data_set):
        with pytest.raises(UniboundError, match=r"no connection.*put the file at .*home.*`folder`") as caught:
            data_set().load()
        assert "\n" not in str(caught.value)

    def test_an_empty_folder(self, data_set, tmp_path):
        with pytest.raises(UsageError, match="put it there"):
            data_set(tmp_path).load()

    def test_a_missing_folder(self, data_set, tmp_path):
        with pytest.raises(UsageError, match="no such folder"):
            data_set(tmp_path / "none").load()


@pytest.fixture
def real():
    """The folder of real data."""
    folder = os.environ.get("UNIBOUND_DATA_DIR")
    if not folder:
        pytest.skip("UNIBOUND_DATA_DIR names no folder of real data")
    return Path(folder)


class TestReal:
    def test_binarized_mnist(self, real, tmp_path):
        """The bits give the canonical text files, and these give the bits."""
        splits = BinarizedMnist(real).load()
        assert splits.train.mean().item() == pytest.approx(0.130562, abs=1e-6)
        module = sys.modules[BinarizedMnist.__module__]
        for name, x in splits.items():
            path = tmp_path / f"binarized_mnist_{name}.amat"
            write_amat(path, x.to(torch.uint8).numpy())
            assert digest(path, "sha256:") == module._CHECKSUMS[name]
        for name, x in BinarizedMnist(tmp_path).load().items():
            assert torch.equal(x, getattr(splits, name))

    def test_mnist(self, real, tmp_path):
        splits = Mnist(real).load()
        assert [len(x) for _, x in splits.items()] == [50000, 10000, 10000]
        train = (torch.cat([splits.train, splits.valid]) * 255).round().to(torch.uint8).numpy()
        write_idx(tmp_path / "train-images-idx3-ubyte", train)
        write_idx(tmp_path / "t10k-images-idx3-ubyte", (splits.test * 255).round().to(torch.uint8).numpy())
        assert digest(tmp_path / "train-images-idx3-ubyte", "md5:") == "md5:6bbc9ace898e44ae57da46a324031adb"
        assert digest(tmp_path / "t10k-images-idx3-ubyte", "md5:") == "md5:2646ac647ad5339dbf082846283269ea"
        for name, x in Mnist(tmp_path).load().items():
            assert torch.equal(x, getattr(splits, name))
