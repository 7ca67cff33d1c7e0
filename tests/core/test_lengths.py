"""Sequences of different lengths: a flag before each step, and refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unibound import UsageError
from unibound.data import read_npz, with_lengths


def test_a_flag_says_which_steps_are_there_and_padding_is_zero() -> None:
    x = torch.arange(1.0, 13.0).view(2, 3, 2)
    x[0, 2] = torch.nan
    expected = [
        [[1, 1, 2], [1, 3, 4], [0, 0, 0]],
        [[1, 7, 8], [0, 0, 0], [0, 0, 0]],
    ]
    assert with_lengths(x, [2, 1]).tolist() == expected
    assert with_lengths(x[..., 0].int(), torch.tensor([3, 1]))[1].tolist() == [[1, 7], [0, 0], [0, 0]]
    assert with_lengths(x.unsqueeze(-1), np.array([3, 3])).shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        ([3, 4], "lengths hold 4, but a sequence has from 1 to 3 steps"),
        ([0, 1], "lengths hold 0, but"),
        ([1.5, 1], "lengths hold 1.5, but"),
        ([float("nan"), 1], "lengths hold nan, but"),
        ([1, 2, 3], r"shape \[3\], not \[2\]"),
        (["1", "2"], "not whole numbers"),
        ([True, False], "not whole numbers"),
    ],
)
def test_lengths_that_are_none_are_refused(lengths: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        with_lengths(torch.zeros(2, 3, 2), lengths)


def test_data_without_steps_have_no_lengths() -> None:
    with pytest.raises(UsageError, match=r"sequences \[N, T, ...\], but the data are \[2\]"):
        with_lengths(torch.zeros(2), [1, 1])


def saved(folder: Path, **arrays: Any) -> Path:
    x = np.random.default_rng(0).random((12, 3, 2)).astype(np.float32)
    np.savez(folder / "data.npz", train=x[:8], test=x[8:], **arrays)
    return folder / "data.npz"


def test_a_file_has_lengths(tmp_path: Path) -> None:
    lengths = np.arange(8) % 3 + 1
    found = read_npz(saved(tmp_path, train_lengths=lengths, test_lengths=np.full(4, 2)))
    assert found.train.shape[1:] == found.valid.shape[1:] == found.test.shape[1:] == (3, 3)
    flags = torch.cat([found.train[:], found.valid[:]])[..., 0]
    assert sorted(flags.sum(1).tolist()) == sorted(lengths.tolist())
    assert found.test[:][..., 0].tolist() == [[1, 1, 0]] * 4


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"train_lengths": np.full(8, 4), "test_lengths": np.full(4, 3)}, "train_lengths hold 4"),
        ({"train_lengths": np.full(8, 3)}, "has train_lengths; give test_lengths, train_lengths, and no others"),
        ({"lengths": np.full(12, 3)}, "has lengths; give test_lengths, train_lengths"),
        ({"train_lengths": np.full(8, 3), "test_lengths": np.full(4, 3), "levels": 4}, "leave the lengths out"),
    ],
)
def test_lengths_of_a_file_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_npz(saved(tmp_path, **arrays))
