"""Pictures: each datum where it belongs, upright and sharp."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from unibound.data.rows import Rows
from unibound.runs.pictures import BORDER, SMALLEST, layers, nearest, save_grid, save_look, traversals
from unibound.testing import World
from unibound.testing.priors import Rates


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


def test_the_nearest_datum_is_found_wherever_it_stands() -> None:
    torch.manual_seed(0)
    train = torch.randint(256, (2500, 3, 2), dtype=torch.uint8)
    at = torch.tensor([0, 999, 1000, 2499])
    drawn = train[at].float() + 0.3 * torch.randn(4, 3, 2)
    found = nearest(drawn, Rows.of(train))
    assert torch.equal(found[::2], drawn)
    assert torch.equal(found[1::2], train[at].float())


def test_the_nearest_datum_is_found_where_draws_and_data_are_on_two_devices() -> None:
    class Kept:
        def __init__(self, device: str) -> None:
            self.device = device

        def split(self, size: int) -> list[torch.Tensor]:
            return [torch.rand(5, 4, device=self.device)]

    with FakeTensorMode(allow_non_fake_inputs=True):  # tensors that have a device and no values
        for one, other in (("cuda", "cpu"), ("cpu", "cuda")):
            found = nearest(torch.rand(3, 4, device=one), cast("Rows", Kept(other)))
            assert found.shape == (6, 4)
            assert found.device.type == one


def test_a_row_of_traversals_takes_one_latent_through_its_values() -> None:
    torch.manual_seed(0)
    world = World.of_bits(3, Rates((2,)))
    made = traversals(world.joint, world.xs.repeat(20, 1)).view(2, 5, 2, -1)  # two bits, five data, off and on
    off, on = made.unbind(2)
    every = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]]).to(world.xs)
    means = world.joint.p.conditional(every).mean
    pairs = {(0, 1), (2, 3)}, {(0, 2), (1, 3)}
    found = []
    for row in range(2):
        which = {
            tuple(int((means - x).abs().sum(1).argmin()) for x in pair) for pair in zip(off[row], on[row], strict=True)
        }
        found.append(next(unit for unit, may in enumerate(pairs) if which <= may))
    assert sorted(found) == [0, 1]


def test_a_frame_is_of_the_same_noise_at_every_look(tmp_path: Path) -> None:
    world = World.of_bits(3, Rates((2,)))
    for done in (1, 2):
        torch.manual_seed(done)
        save_look(tmp_path, world.joint, done, seed=5)
    first, second = (read(path) for path in sorted((tmp_path / "film").iterdir()))
    assert np.array_equal(first, second)
    assert not (tmp_path / "chain.png").exists()


def test_a_row_of_layers_holds_one_draw_still() -> None:
    world = World.of_layers(3)
    torch.manual_seed(3)
    rows = layers(world.joint)
    assert rows is not None
    top, low = rows.view(2, 10, -1)
    means = world.joint.p.generators[0](torch.tensor([[0.0], [1.0]]).double()).mean  # all that one bit can say

    def said(row: torch.Tensor) -> set[int]:
        off = (row.unsqueeze(1) - means).abs().sum(-1)
        assert off.min(1).values.max() < 1e-9
        return set(off.argmin(1).tolist())

    assert len(said(low)) == 1
    assert said(top) == {0, 1}
    assert layers(World.of_bits(3, Rates((2,))).joint) is None
