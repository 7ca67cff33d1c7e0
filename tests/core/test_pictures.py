"""Pictures: each datum where it belongs, upright and sharp."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unibound.runs.pictures import BORDER, SMALLEST, save_grid


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(float) / 255


def test_each_datum_stands_in_its_cell(tmp_path: Path) -> None:
    x = torch.rand(23, 8, 8).round()
    save_grid(tmp_path / "grid.png", x, columns=10)
    picture = read(tmp_path / "grid.png")
    size = SMALLEST
    assert picture.shape == (3 * (size + BORDER) + BORDER, 10 * (size + BORDER) + BORDER)
    for i, datum in enumerate(x):
        top, left = (at * (size + BORDER) + BORDER for at in divmod(i, 10))
        cell = picture[top : top + size, left : left + size]
        assert np.array_equal(cell[::6, ::6], datum.numpy())
        assert np.array_equal(cell, datum.numpy().repeat(6, 0).repeat(6, 1))


@pytest.mark.parametrize(
    ("shape", "size"),
    [((8, 8), (48, 48)), ((64,), (48, 48)), ((6,), (8, 48)), ((1, 8, 8), (48, 48)), ((60, 50), (60, 50))],
)
def test_shapes(tmp_path: Path, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    save_grid(tmp_path / "grid.png", torch.ones(1, *shape), columns=1)
    assert read(tmp_path / "grid.png").shape == (size[0] + 2 * BORDER, size[1] + 2 * BORDER)


def test_color(tmp_path: Path) -> None:
    x = torch.zeros(1, 3, 50, 50)
    x[:, 1] = 1
    save_grid(tmp_path / "grid.png", x, columns=1)
    picture = read(tmp_path / "grid.png")
    assert picture.shape == (54, 54, 3)
    assert picture[10, 10].tolist() == [0, 1, 0]


def test_values_beyond_black_and_white_are_cut(tmp_path: Path) -> None:
    save_grid(tmp_path / "grid.png", torch.tensor([[[-3.0, 7.0]]]), columns=1)
    assert set(read(tmp_path / "grid.png")[BORDER + 1, BORDER:-BORDER]) == {0.0, 1.0}


def test_nothing_else_is_left(tmp_path: Path) -> None:
    for _ in range(2):
        save_grid(tmp_path / "grid.png", torch.rand(3, 4, 4))
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]
