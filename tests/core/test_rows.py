"""Data kept as bytes, or packed, read as the numbers they are, and in no more room than their file."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from unibound import UsageError
from unibound.data import Rows, Splits, batches, binarize, fit, read_npz, sample_bits, scale
from unibound.data import rows as module
from unibound.support import boolean, describe, integer_interval

RNG = np.random.default_rng(0)
BITS = RNG.integers(0, 2, (50, 11)).astype(np.uint8)
KINDS = {
    "bytes": BITS,
    "booleans": BITS.astype(bool),
    "spins": 2 * BITS.astype(np.int8) - 1,
    "floats": RNG.normal(size=(50, 11)).astype(np.float32),
    "doubles": RNG.normal(size=(50, 11)),
    "whole numbers": RNG.integers(-300, 300, (50, 11)),
    "big end first": RNG.normal(size=(50, 11)).astype(">f4"),
    "columns first": np.asfortranarray(RNG.normal(size=(50, 11))),
}


def packed() -> Rows:
    return Rows(torch.from_numpy(np.packbits(BITS, axis=1)), (11,), packed=True)


@pytest.mark.parametrize("kind", [*KINDS, "packed"])
def test_they_are_read_as_numbers_whichever_way(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 40)  # several blocks, the last of them short
    x = BITS if kind == "packed" else KINDS[kind]
    kept, right = packed() if kind == "packed" else Rows.of(x), torch.from_numpy(np.array(x, dtype=np.float32))
    assert len(kept) == 50
    assert kept.shape == (50, 11)
    for chosen in (slice(None), slice(3, 9), torch.tensor([7, 0, 7])):
        assert torch.equal(kept[chosen], right[chosen])
        assert kept[chosen].dtype == torch.float32
    for found in (torch.cat(list(kept.split(7))), torch.cat(list(kept.blocks()))):
        assert torch.equal(found, right)
    torch.testing.assert_close(kept.mean(), right.mean(0))
    assert torch.equal(kept.part(slice(10, 20))[:], right[10:20])
    wide = kept.to(torch.device("cpu"), torch.float64)
    assert torch.equal(wide[:], right.double())


class AsAGPUDivides(TorchFunctionMode):
    """By a plain number it multiplies by the inverse, which is off a bit."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.div, torch.Tensor.div, torch.Tensor.__truediv__) and not torch.is_tensor(args[1]):
            return args[0] * (1 / torch.tensor(args[1], dtype=torch.float32))
        return func(*args, **(kwargs or {}))


def test_levels_are_the_same_numbers_on_every_device() -> None:
    """Or else what a GPU trained on would be other data to whoever resumes or evaluates it elsewhere."""
    kept = Rows.of(np.arange(256, dtype=np.uint8).reshape(64, 4)).divided(255)
    here = kept[:]
    with AsAGPUDivides():
        assert not torch.equal(kept.kept.float() / 255.0, here)
        assert torch.equal(kept[:], here)


def test_what_is_kept_is_narrow() -> None:
    assert Rows.of(BITS).kept.dtype == Rows.of(BITS.astype(bool)).kept.dtype == torch.uint8
    assert packed().kept.numel() == 50 * 2
    assert Splits(BITS, BITS, BITS).rows("train").kept.element_size() == 1


@pytest.mark.parametrize("x", [BITS, BITS.astype(np.float32), BITS.astype(bool)])
def test_digest_is_of_the_numbers_and_not_of_how_they_are_kept(x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Splits(x, x, x).digest()
    assert whole == Splits(packed(), packed(), packed()).digest()
    monkeypatch.setattr(module, "BLOCK", 40)
    assert Splits(x, x, x).digest() == whole
    other = x.copy()
    other[-1, -1] = 1 - other[-1, -1]
    assert Splits(x, x, other).digest() != whole
    assert Splits(x, other, x).digest() != Splits(x, x, other).digest()


@pytest.mark.parametrize("how", ["threshold", "static", "dynamic"])
def test_bits_of_bytes_are_those_of_floats(how, monkeypatch: pytest.MonkeyPatch) -> None:
    x = RNG.integers(0, 256, (60, 5)).astype(np.uint8)
    bytes_ = Splits(x, x, x, support=integer_interval(0, 255))
    floats = Splits(*3 * [torch.from_numpy(x).float() / 255], levels=256)
    right = binarize(floats, how)
    monkeypatch.setattr(module, "BLOCK", 32)
    found = binarize(bytes_, how)
    for name, part in right.items():
        assert torch.equal(found.rows(name)[:], part)
    assert torch.equal(scale(bytes_).test, floats.test)
    torch.manual_seed(0)
    dynamic = torch.cat(list(batches(scale(bytes_).rows("train"), 7, dynamic=True)))
    torch.manual_seed(0)
    assert torch.equal(dynamic, torch.cat(list(batches(floats.train, 7, dynamic=True))))


def test_blocks_of_bits_are_drawn_as_all_at_once() -> None:
    grey = torch.rand(100, 7)
    one = sample_bits(grey, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(torch.cat([sample_bits(part, generator) for part in grey.split(9)]), one)


@pytest.mark.parametrize("where", [0, 30, 49])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found_in_every_block(where: int, value: float, monkeypatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 40)
    x = RNG.normal(size=(50, 11)).astype(np.float32)
    x[where, 5] = value
    with pytest.raises(UsageError, match="valid holds NaN or infinite"):
        Splits(KINDS["floats"], x, KINDS["floats"])
    with pytest.raises(UsageError, match="holds NaN or infinite"):
        Splits(x, np.where(x == x, x, -x), KINDS["floats"])


def test_a_constant_set_is_one_in_every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 40)
    x = np.ones((50, 11), np.uint8)
    varied = x.copy()
    varied[49, 0] = 0
    with pytest.raises(UsageError, match="all training data are the same"):
        fit(Splits(x, varied, varied), boolean, None, "it")
    assert fit(Splits(varied, x, x), boolean, None, "it")[1] == ""


def test_bytes_are_pictures_only_where_they_use_their_whole_range(tmp_path: Path) -> None:
    counts = RNG.poisson(140, (40, 6)).clip(0, 250).astype(np.uint8)
    np.savez(tmp_path / "a.npz", train=counts, valid=counts, test=counts)
    assert describe(read_npz(tmp_path / "a.npz").support) == "counts"
    for end in (0, 255):  # a count may be none, or as many as a byte holds
        one = counts.copy()
        one[0, 0] = end
        np.savez(tmp_path / "b.npz", train=one, valid=counts, test=counts)
        assert describe(read_npz(tmp_path / "b.npz").support) == "counts"
    np.savez(tmp_path / "c.npz", train=counts, valid=counts, test=counts, levels=256)
    assert describe(read_npz(tmp_path / "c.npz").support) == "whole numbers from 0 to 255"


MEASURE = """
    import resource, sys
    from pathlib import Path
    from unibound.data import batches, fit, read_npz
    from unibound.support import boolean
    read_npz(Path(sys.argv[2]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    splits, _ = fit(read_npz(Path(sys.argv[1])), boolean, None, "it")
    splits.digest(), splits.rows("train").mean(), next(batches(splits.rows("train"), 50))
    print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted otherwise there")
def test_they_take_no_more_than_twice_the_room_of_their_file(tmp_path: Path) -> None:
    x = RNG.integers(0, 2, (120_000, 784), dtype=np.uint8)
    few = tmp_path / "few.npz"
    np.savez(few, train=x[:20_000], valid=x[:10], test=x[:10])
    every = tmp_path / "every.npz"
    np.savez(every, train=x, valid=x[:10], test=x[:10])
    command = [sys.executable, "-c", textwrap.dedent(MEASURE), every, few]
    taken = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert taken < 2 * every.stat().st_size
