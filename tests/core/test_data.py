"""Data by name and by file, binarization, batches, and the download of files."""

import hashlib
import io
import os
import re
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unibound import support
from unibound.data import DataSet, Splits, batches, binarize, download, fit, read_npz, sample_bits, scale
from unibound.data.download import data_home, fetch, find
from unibound.errors import UniboundError, UsageError

some = settings(max_examples=40)

FROZEN_BITS = [
    [0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0],
    [1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1],
    [0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0, 1],
]


def grey(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def splits():
    return Splits(grey(30, 2, 3), grey(20, 2, 3, seed=1), grey(10, 2, 3, seed=2))


@attrs.frozen
class Tiny(DataSet):
    def load(self):
        return Splits(grey(3, 4), grey(2, 4), grey(1, 4))


class TestSplits:
    def test_keeps_float32_and_the_event_shape(self):
        splits = Splits(grey(3, 2, 4).double(), torch.ones(2, 2, 4, dtype=torch.bool), grey(1, 2, 4))
        assert splits.event_shape == (2, 4)
        assert {x.dtype for _, x in splits.items()} == {torch.float32}
        assert [name for name, _ in splits.items()] == ["train", "valid", "test"]

    @pytest.mark.parametrize(
        ("bad", "reason"),
        [
            (torch.empty(0, 4), "valid is empty"),
            (torch.rand(4), "valid has shape"),
            (torch.empty(2, 0), "valid has shape"),
            (torch.rand(2, 5), r"valid has data of shape \[5\], train of \[4\]"),
            (torch.full((2, 4), torch.nan), "valid holds NaN"),
            (torch.full((2, 4), torch.inf), "valid holds NaN or infinite"),
        ],
    )
    def test_names_the_file_and_the_split_at_fault(self, bad, reason):
        with pytest.raises(UsageError, match=f"^a.npz: {reason}") as caught:
            Splits(grey(3, 4), bad, grey(1, 4), source="a.npz")
        assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory):
    """A file that is written over and over."""
    return tmp_path_factory.mktemp("rewritten") / "a.npz"


def complaint(path):
    """What is said of a file; nothing where it gives the identity, as it should."""
    try:
        splits = read_npz(path)
    except UsageError as error:
        return str(error)
    assert torch.equal(splits.test, torch.eye(20))
    return ""


class TestReadNpz:
    @some
    @given(bits=hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 40)), elements=st.integers(0, 1)))
    def test_packed_bits_come_back(self, rewritten, bits):
        packed = np.packbits(bits, axis=1)
        np.savez(rewritten, train=packed, valid=packed, test=packed, n_pixels=bits.shape[1])
        splits = read_npz(rewritten)
        for x in (splits.train, splits.valid, splits.test):
            assert torch.equal(x, torch.from_numpy(bits).float())

    @some
    @given(
        x=hnp.arrays(
            st.sampled_from([np.bool_, np.uint8, np.int64, np.float32, np.float64]),
            hnp.array_shapes(min_dims=2, max_dims=4, max_side=5),
            elements=st.sampled_from([0, 1]),
        )
    )
    def test_zeros_and_ones_of_any_type_and_shape(self, rewritten, x):
        np.savez(rewritten, train=x, valid=x, test=x)
        assert torch.equal(read_npz(rewritten).valid, torch.from_numpy(x).float())

    def test_packed_bits_have_the_shape_that_is_given(self, tmp_path):
        bits = np.eye(6, dtype=np.uint8)
        packed = np.packbits(bits, axis=1)
        np.savez(tmp_path / "a.npz", train=packed, valid=packed, test=packed, n_pixels=6, shape=[2, 3])
        assert torch.equal(read_npz(tmp_path / "a.npz").test, torch.eye(6).reshape(6, 2, 3))

    def test_bytes_that_use_their_range_are_levels_of_one_scale(self, tmp_path):
        train = np.array([[0, 51, 255]], dtype=np.uint8)
        np.savez(tmp_path / "a.npz", train=train, valid=train, test=np.ones((1, 3), dtype=np.uint8))
        splits = read_npz(tmp_path / "a.npz")
        assert splits.train.tolist() == [[0, 51, 255]]
        assert support.same(splits.support, support.integer_interval(0, 255))
        scaled = scale(splits)
        assert scaled.levels == 256
        torch.testing.assert_close(scaled.train, torch.tensor([[0, 0.2, 1]]))
        torch.testing.assert_close(scaled.test, torch.full((1, 3), 1 / 255))

    @pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
    def test_small_whole_numbers_are_counts_whatever_their_type(self, tmp_path, dtype):
        counts = np.arange(18).reshape(6, 3).astype(dtype)
        np.savez(tmp_path / "a.npz", train=counts, valid=counts, test=counts)
        splits = read_npz(tmp_path / "a.npz")
        assert splits.train.max() == 17
        assert support.same(splits.support, support.nonnegative_integer)
        with pytest.raises(UsageError, match=r"a.npz holds counts, which are no grey levels .*an array levels"):
            binarize(splits, "threshold")

    def test_one_value_above_one_in_the_test_split_is_no_scale(self, tmp_path):
        bits = np.eye(4, dtype=np.uint8)
        np.savez(tmp_path / "a.npz", train=bits, valid=bits, test=bits * 2)
        splits = read_npz(tmp_path / "a.npz")
        assert splits.train.max() == 1
        with pytest.raises(UsageError, match="holds counts"):
            binarize(splits, "static")

    def test_levels_that_are_declared(self, tmp_path):
        levels = np.array([[0, 4, 16], [16, 16, 0]], dtype=np.uint8)
        np.savez(tmp_path / "a.npz", train=levels, valid=levels, test=levels, levels=17)
        assert binarize(read_npz(tmp_path / "a.npz"), "threshold").train.tolist() == [[0, 0, 1], [1, 1, 0]]
        np.savez(tmp_path / "b.npz", train=levels, valid=levels, test=levels, levels=16)
        with pytest.raises(UsageError, match="whole numbers from 0 to 15, but the data hold 16"):
            read_npz(tmp_path / "b.npz")

    def test_valid_is_the_end_of_train_where_a_data_set_says_so(self, tmp_path):
        images = grey(35, 2, 2).numpy()
        np.savez(tmp_path / "a.npz", train_images=images, test_images=images, train_labels=np.arange(35))
        splits = read_npz(tmp_path / "a.npz", 7)
        assert torch.equal(torch.cat([splits.train, splits.valid]), torch.from_numpy(images))
        assert len(splits.valid) == 7

    @pytest.mark.parametrize("packed", [False, True])
    def test_elsewhere_valid_is_spread_over_rows_that_may_be_sorted(self, tmp_path, packed):
        rows = np.unpackbits(np.arange(100, dtype=np.uint8)[:, None], axis=1)
        x, more = (np.packbits(rows, axis=1), {"n_pixels": 8}) if packed else (rows, {})
        np.savez(tmp_path / "a.npz", train=x, test=x, **more)
        splits = read_npz(tmp_path / "a.npz")
        number = 2.0 ** torch.arange(7, -1, -1)
        assert (splits.valid @ number).tolist() == list(range(0, 100, 10))
        both = torch.cat([splits.train, splits.valid]) @ number
        assert both.sort().values.tolist() == list(range(100))

    @pytest.mark.parametrize(
        ("arrays", "reason"),
        [
            ({"train": np.eye(4)}, "no array 'test' among train; write it with"),
            ({"x": np.eye(4)}, "no array 'train' among none; write it with"),
            ({"train": np.eye(4), "test": np.array([None, 1])}, "holds pickled objects"),
            ({"train": np.eye(4), "test": np.array([["a"]])}, "test holds <U1, not numbers"),
            ({"train": np.eye(4), "test": np.float64(1)}, r"test has shape \[\]"),
            ({"train": np.float64(1), "test": np.eye(4)}, r"train has shape \[\]"),
            ({"train": np.eye(4)[:1], "test": np.eye(4)}, "train holds 1, too few to split off 1"),
            ({"train": np.eye(4), "test": np.eye(4), "levels": 1}, "levels must be one whole number"),
            ({"train": np.eye(4) * 3, "test": np.eye(4), "levels": 3}, "train is over whole numbers from 0 to 2"),
            ({"train": np.eye(4), "test": np.eye(5)}, "test has data of shape"),
            ({"train": np.eye(4), "test": np.eye(4), "n_pixels": 32}, "train is float64"),
            ({"train": np.eye(4, dtype="u1"), "test": np.eye(4), "n_pixels": 33}, r"train is uint8 \[4, 4\]"),
            (
                {"train": np.eye(4, dtype="u1"), "test": np.eye(4), "n_pixels": 0},
                "train: n_pixels must be one",
            ),
            (
                {"train": np.eye(4, dtype="u1"), "test": np.eye(4), "n_pixels": [1, 2]},
                "train: n_pixels must be",
            ),
            (
                {"train": np.eye(4, dtype="u1"), "test": np.eye(4), "n_pixels": 32, "shape": [5, 5]},
                r"train: an image of shape \[5, 5\]",
            ),
            (
                {"train": np.eye(4, dtype="u1"), "test": np.eye(4), "n_pixels": 32, "shape": [-4, -8]},
                r"train: an image of shape \[-4, -8\]",
            ),
        ],
    )
    def test_bad_arrays(self, tmp_path, arrays, reason):
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(UsageError, match=f"a.npz: {reason}") as caught:
            read_npz(tmp_path / "a.npz")
        assert "\n" not in str(caught.value)

    def test_another_kind_of_file(self, tmp_path):
        np.save(tmp_path / "a.npy", np.eye(3))
        with pytest.raises(UsageError, match=r"a.npy: holds a single array; write it with"):
            read_npz(tmp_path / "a.npy")
        (tmp_path / "a.txt").write_text("0 1\n")
        with pytest.raises(UsageError, match=r"a.txt: is damaged, or no .npz file"):
            read_npz(tmp_path / "a.txt")

    @some
    @given(keep=st.floats(0, 0.999), compressed=st.booleans())
    def test_a_truncated_file_is_one_line(self, rewritten, keep, compressed):
        file = io.BytesIO()
        (np.savez_compressed if compressed else np.savez)(file, train=np.eye(20), test=np.eye(20))
        rewritten.write_bytes(file.getvalue()[: int(keep * file.tell())])
        with pytest.raises(UsageError, match=r"a.npz: is damaged"):
            read_npz(rewritten)

    @some
    @given(data=st.data())
    def test_a_flipped_byte_gives_the_data_or_one_line(self, rewritten, data):
        file = io.BytesIO()
        np.savez_compressed(file, train=np.eye(20), test=np.eye(20))
        content = bytearray(file.getvalue())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        rewritten.write_bytes(content)
        assert re.fullmatch(rf"({re.escape(str(rewritten))}: .+)?", complaint(rewritten))

    @some
    @given(where=st.floats(0, 1), flip=st.integers(1, 255))
    def test_a_flipped_byte_of_the_data_is_seen(self, rewritten, where, flip):
        np.savez(rewritten, train=np.eye(20), test=np.eye(20))
        content, values = bytearray(rewritten.read_bytes()), np.eye(20).tobytes()
        content[content.rindex(values) + int(where * (len(values) - 1))] ^= flip
        rewritten.write_bytes(content)
        with pytest.raises(UsageError, match=r"a.npz: is damaged"):
            read_npz(rewritten)


def splits_of(x):
    return Splits(x, x, x, source="a.npz")


class TestFit:
    """What is done to data so that a likelihood is over them, and what is refused."""

    grey = torch.tensor([[0.0, 0.4, 1.0], [0.9, 0.1, 0.5]])

    @pytest.mark.parametrize(
        ("x", "wanted", "how", "expected", "said"),
        [
            ([[0, 1], [1, 0]], support.boolean, None, [[0, 1], [1, 0]], ""),
            ([[0, 1], [1, 0]], support.boolean, "static", [[0, 1], [1, 0]], ""),
            (
                [[0.2, 1], [0.7, 0]],
                support.boolean,
                None,
                [[0, 1], [1, 0]],
                "numbers from 0 to 1 set to bits at one half",
            ),
            ([[0.2, 1], [0.7, 0]], support.real, None, [[0.2, 1], [0.7, 0]], ""),
            ([[-3.5, 1], [0.7, 90]], support.real, None, [[-3.5, 1], [0.7, 90]], ""),
            ([[0, 7], [2, 0]], support.nonnegative_integer, None, [[0, 7], [2, 0]], ""),
            ([[-1, 1], [1, -1]], support.spin, None, [[-1, 1], [1, -1]], ""),
            ([[0, 1], [1, 0]], support.real, None, [[0, 1], [1, 0]], "bits under a density"),
            ([[0, 1], [1, 0]], support.levels(4), None, [[0, 1], [1, 0]], ""),
        ],
    )
    def test_as_much_as_is_needed_and_it_is_said(self, x, wanted, how, expected, said):
        fitted, words = fit(splits_of(torch.tensor(x).float()), wanted, how, "likelihood l")
        torch.testing.assert_close(fitted.train, torch.tensor(expected).float())
        assert words.startswith(said)
        assert bool(words) is bool(said)

    @pytest.mark.parametrize("scaled", [False, True])
    def test_levels_are_kept_by_who_is_over_so_many(self, scaled):
        x = torch.tensor([[0.0, 1.0], [3.0, 2.0]])
        over = (
            {"support": support.unit_interval, "levels": 4} if scaled else {"support": support.integer_interval(0, 3)}
        )
        levels = Splits(*[x / 3 if scaled else x] * 3, **over)
        fitted, words = fit(levels, support.levels(4), None, "likelihood l")
        torch.testing.assert_close(fitted.train, x / 3)
        assert words == "4 grey levels kept, as steps from 0 to 1"
        assert (fitted.levels, fitted.support.count) == (4, 4)
        with pytest.raises(UsageError, match=r"is over 256 levels .*, but data has 4; set its levels to 4$"):
            fit(levels, support.levels(256), None, "likelihood l")

    @pytest.mark.parametrize(
        ("x", "wanted", "how", "reason"),
        [
            (
                [[0.2, 1], [0.7, 0]],
                support.boolean,
                "none",
                "likelihood l, for train, is over bits.*hold 0.7; binarize",
            ),
            ([[0.2, 1], [0.7, 0]], support.real, "threshold", "binarization threshold makes bits.*over reals"),
            ([[0, 7], [2, 0]], support.boolean, None, "holds counts, which are no grey levels"),
            ([[-1, 1], [1, -1]], support.boolean, None, "holds spins"),
            ([[0.2, 1], [0.7, 0]], support.levels(256), None, "over 256 levels from 0 to 1, but the data hold 0.7"),
            ([[-1.5, 1], [1, -1]], support.nonnegative_integer, None, "over counts, but the data hold -1.5"),
            ([[0.2, 0.3], [0.1, 0]], support.boolean, None, "all training data are the same"),
            ([[3, 3], [3, 3]], support.nonnegative_integer, None, "all training data are the same"),
        ],
    )
    def test_what_cannot_be_fitted_is_refused(self, x, wanted, how, reason):
        with pytest.raises(UsageError, match=reason) as caught:
            fit(splits_of(torch.tensor(x).float()), wanted, how, "likelihood l")
        assert "\n" not in str(caught.value)


class TestBinarize:
    def test_threshold(self):
        x = torch.tensor([[0.0, 0.49, 0.5, 1.0]])
        assert binarize(Splits(x, x, x), "threshold").valid.tolist() == [[0, 0, 1, 1]]

    def test_none(self, splits):
        assert binarize(splits, "none") is splits

    @pytest.mark.parametrize("how", ["threshold", "static", "dynamic", "none"])
    def test_bits_stay(self, how):
        x = torch.eye(4)
        assert all(torch.equal(bits, x) for _, bits in binarize(Splits(x, x, x), how).items())

    def test_static_depends_on_no_seed_and_moves_no_generator(self, splits):
        torch.manual_seed(1)
        first, after = binarize(splits, "static"), torch.rand(1)
        torch.manual_seed(1)
        assert torch.equal(after, torch.rand(1))
        second = binarize(splits, "static")
        for name, bits in first.items():
            assert torch.equal(bits, getattr(second, name))
            assert set(bits.unique().tolist()) == {0, 1}

    def test_static_bits_are_the_same_everywhere(self):
        x = torch.full((1, 12), 0.5)
        bits = binarize(Splits(x, x, x), "static")
        assert [x.int().flatten().tolist() for _, x in bits.items()] == FROZEN_BITS

    def test_dynamic_leaves_train_and_samples_the_rest_like_static(self, splits):
        static, dynamic = binarize(splits, "static"), binarize(splits, "dynamic")
        assert torch.equal(dynamic.train, splits.train)
        assert torch.equal(dynamic.valid, static.valid)
        assert torch.equal(dynamic.test, static.test)

    def test_unknown(self, splits):
        with pytest.raises(UsageError, match=r"unknown binarization 'otsu'; choose one of threshold, static"):
            binarize(splits, "otsu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sampled_bits_have_the_probabilities_given(dtype):
    x = torch.tensor([0, 0.25, 0.9, 1], dtype=dtype).expand(20000, 4)
    bits = sample_bits(x, torch.Generator().manual_seed(0))
    assert bits.dtype == dtype
    torch.testing.assert_close(bits.mean(0), x[0], atol=0.015, rtol=0)  # five standard errors
    assert bits[:, 0].sum() == 0
    assert bits[:, 3].all()


class TestBatches:
    @given(count=st.integers(1, 30), batch_size=st.integers(1, 40))
    def test_each_datum_once(self, count, batch_size):
        x = torch.arange(count)[:, None]
        drawn = list(batches(x, batch_size))
        assert torch.equal(torch.cat(drawn).sort(0).values, x)
        assert {len(batch) for batch in drawn[:-1]} <= {batch_size}

    def test_shuffled_anew_from_the_global_generator(self):
        x = torch.arange(50)[:, None]
        torch.manual_seed(3)
        state = torch.get_rng_state()
        first, second = torch.cat(list(batches(x, 8))), torch.cat(list(batches(x, 8)))
        assert not torch.equal(first, second)
        torch.set_rng_state(state)
        assert torch.equal(first, torch.cat(list(batches(x, 8))))

    def test_dynamic_bits_are_drawn_anew_and_reproducibly(self):
        x = torch.full((1, 1000), 0.5)  # of one datum, which cannot change places
        torch.manual_seed(0)
        first, second = (torch.cat(list(batches(x, 8, dynamic=True))) for _ in range(2))
        assert set(first.unique().tolist()) == {0, 1}
        assert not torch.equal(first, second)
        torch.manual_seed(0)
        assert torch.equal(first, torch.cat(list(batches(x, 8, dynamic=True))))

    def test_refuses_an_empty_batch_at_once(self):
        with pytest.raises(UsageError, match="batch size is 0"):
            batches(torch.eye(3), 0)


CONTENT = b"0 1 1 0\n" * 500


def checksum_of(content, kind="sha256"):
    return f"{kind}:{hashlib.new(kind, content).hexdigest()}"


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; `/short/x` promises more than it sends."""

    def do_GET(self):
        self.server.hits.append(self.path)
        if not self.path.startswith("/short/"):
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        return self.wfile.write(CONTENT[:100])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.txt").write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path / "served"))
    server.hits = []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


class TestFetch:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path, monkeypatch):
        monkeypatch.setenv("UNIBOUND_DATA_HOME", str(tmp_path / "home"))
        for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(proxy, raising=False)
        return tmp_path / "home"

    def test_home_is_a_cache_folder_by_default(self, home, monkeypatch):
        assert data_home() == home
        monkeypatch.delenv("UNIBOUND_DATA_HOME")
        assert "unibound" in str(data_home())

    @pytest.mark.parametrize(
        "checksum",
        [
            checksum_of(CONTENT),
            checksum_of(CONTENT, "md5"),
            "git:" + hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest(),
        ],
    )
    def test_downloads_once(self, server, home, checksum):
        for _ in range(2):
            path = fetch(f"{server.url}/a.txt", checksum, subfolder="sub")
            assert path == home / "sub" / "a.txt"
            assert path.read_bytes() == CONTENT
        assert server.hits == ["/a.txt"]
        assert list(path.parent.iterdir()) == [path]

    def test_a_damaged_copy_is_replaced(self, server, home):
        home.mkdir()
        (home / "a.txt").write_bytes(CONTENT[:-1])
        assert fetch(f"{server.url}/a.txt", checksum_of(CONTENT)).read_bytes() == CONTENT

    @pytest.mark.parametrize("source", ["none/a.txt", "short/a.txt", "a.txt"])
    def test_a_file_of_somebody_s_is_never_lost(self, server, home, source):
        """Whether there is no replacement, half a one, or another: the checksum itself may be the one that is wrong."""
        home.mkdir()
        (home / "a.txt").write_bytes(b"put here by hand")
        with pytest.raises(UniboundError, match=r"a\.txt, which is left as it is, does not have the checksum"):
            fetch(f"{server.url}/{source}", checksum_of(b"mistyped"))
        assert (home / "a.txt").read_bytes() == b"put here by hand"
        assert list(home.iterdir()) == [home / "a.txt"]

    def test_it_is_set_aside_once_a_verified_one_takes_its_place(self, server, home):
        home.mkdir()
        for old in (b"first", b"second"):
            (home / "a.txt").write_bytes(old)
            assert fetch(f"{server.url}/a.txt", checksum_of(CONTENT)).read_bytes() == CONTENT
        assert (home / "a.txt.old").read_bytes() == b"first"
        assert (home / "a.txt.old1").read_bytes() == b"second"

    def test_a_wrong_checksum_leaves_nothing(self, server, home):
        with pytest.raises(
            UniboundError, match=r"a.txt: its 4000 bytes have checksum sha256:.*, not sha256:"
        ) as caught:
            fetch(f"{server.url}/a.txt", checksum_of(b"other"))
        assert "\n" not in str(caught.value)
        assert list(home.iterdir()) == []

    @pytest.mark.parametrize(("path", "reason"), [("short/a.txt", ""), ("none/a.txt", "HTTP status 404")])
    def test_a_broken_source_leaves_nothing(self, server, home, path, reason):
        with pytest.raises(UniboundError, match=f"cannot download a.txt .*/{path}: {reason}"):
            fetch(f"{server.url}/{path}", checksum_of(CONTENT))
        assert list(home.iterdir()) == []

    def test_a_mirror_steps_in(self, server):
        path = fetch(f"{server.url}/none/a.txt", checksum_of(CONTENT), mirrors=[f"{server.url}/a.txt"])
        assert path.read_bytes() == CONTENT

    def test_offline_names_the_address_the_cache_and_the_folder(self, server, home):
        server.shutdown()
        server.server_close()
        with pytest.raises(UniboundError) as caught:
            fetch(f"{server.url}/a.txt", checksum_of(CONTENT))
        message = str(caught.value)
        for part in (f"{server.url}/a.txt: no connection", f"put the file at {home / 'a.txt'}", "`folder`"):
            assert part in message
        assert "\n" not in message

    def test_no_space_leaves_nothing(self, server, home, monkeypatch):
        def full(self, block):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(download._Watched, "write", full)
        with pytest.raises(UniboundError, match=r"cannot keep .*a.txt: No space left on device; make room"):
            fetch(f"{server.url}/a.txt", checksum_of(CONTENT))
        assert list(home.iterdir()) == []

    def test_a_home_that_cannot_be_made(self, server, home):
        home.write_text("a file")
        with pytest.raises(
            UniboundError, match=r"cannot keep .*; make room or make it writable, or set UNIBOUND_DATA_HOME"
        ):
            fetch(f"{server.url}/a.txt", checksum_of(CONTENT))

    def test_an_interruption_leaves_nothing(self, server, home, monkeypatch):
        def interrupt(self, block):
            raise KeyboardInterrupt

        monkeypatch.setattr(download._Watched, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(f"{server.url}/a.txt", checksum_of(CONTENT))
        assert list(home.iterdir()) == []

    def test_what_a_killed_download_left_is_swept(self, server, home):
        home.mkdir()
        old, new = home / "a.txt.1.part", home / "a.txt.2.part"
        for partial_file in (old, new):
            partial_file.write_bytes(b"half")
        os.utime(old, (time.time() - 7200,) * 2)
        path = fetch(f"{server.url}/a.txt", checksum_of(CONTENT))
        assert set(home.iterdir()) == {path, new}  # the new one may belong to a download under way


def test_find(tmp_path):
    (tmp_path / "b").touch()
    assert find(tmp_path, "a", "b") == tmp_path / "b"
    with pytest.raises(UsageError, match="has no readable a or c; put it there"):
        find(tmp_path, "a", "c")
    with pytest.raises(UsageError, match="no such folder"):
        find(tmp_path / "none", "a")
