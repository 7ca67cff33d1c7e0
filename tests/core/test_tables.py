"""Arrays, tables and folders of images: what is read of them, which class a datum is of, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unibound import UsageError
from unibound.data import File
from unibound.data.tables import read
from unibound.support import integer_interval, nonnegative_integer, real, same

NUMBERS = np.arange(60).reshape(20, 3)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def text(name: str, rows: list[str]) -> Path:
    Path(name).write_text("\n".join(rows) + "\n")
    return Path(name)


def table(x: np.ndarray) -> list[str]:
    return [",".join(map(str, row)) for row in x]


def image(path: str, value: int, size: tuple[int, int] = (4, 3), mode: str = "L") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255)).save(path)


def test_an_array_and_a_table_are_the_same_data_in_three_parts() -> None:
    np.save("x.npy", NUMBERS)
    named = text("named.csv", ["a,b,c", *table(NUMBERS)])
    marked = text("x.tsv", [row.replace(",", "\t") for row in table(NUMBERS)])
    found = [File(path).load() for path in (Path("x.npy"), text("x.csv", table(NUMBERS)), named, marked)]
    assert len({splits.digest() for splits in found}) == 1
    splits = found[0]
    assert [len(splits.rows(name)) for name in ("train", "valid", "test")] == [17, 1, 2]
    every = np.concatenate([splits.train, splits.valid, splits.test])
    assert sorted(map(tuple, every.tolist())) == sorted(map(tuple, NUMBERS.tolist()))
    assert same(splits.support, nonnegative_integer)
    assert same(File(text("reals.csv", table(NUMBERS - 0.5))).load().support, real)


@pytest.mark.parametrize("at", [0, 2, 3])
def test_labels_stay_with_their_data(at: int) -> None:
    words = [f"class {row[0]}" for row in NUMBERS]
    columns = [list(map(str, column)) for column in NUMBERS.T]
    columns.insert(at, words)
    names = ["a", "b", "c"]
    names.insert(at, "Label")
    found = read(text("x.csv", [",".join(names), *map(",".join, zip(*columns, strict=True))]))
    for name in ("train", "valid", "test"):
        x = found.rows(name)[:]
        assert found.labels[name] == [f"class {int(row[0])}" for row in x]


def test_a_parquet_table() -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    words = [str(row[0]) for row in NUMBERS]
    whole = arrow.table({"a": NUMBERS[:, 0], "target": words, "b": NUMBERS[:, 1], "c": NUMBERS[:, 2]})
    parquet.write_table(whole, "x.parquet")
    found = read(Path("x.parquet"))
    assert found.digest() == File(text("x.csv", table(NUMBERS))).load().digest()
    assert found.labels["test"] == [str(int(row[0])) for row in found.test]
    parquet.write_table(arrow.table({"a": [1.0, None], "b": [1, 2]}), "holes.parquet")
    with pytest.raises(UsageError, match="column a misses 1 values"):
        read(Path("holes.parquet"))
    text("no.parquet", ["nothing"])
    with pytest.raises(UsageError, match=r"damaged, or no \.parquet file"):
        read(Path("no.parquet"))


def test_a_folder_of_images_and_its_classes() -> None:
    for number in range(12):
        image(f"all/{'even' if number % 2 == 0 else 'odd'}/{number:02}.png", 10 * number)
    found = read(Path("all"))
    assert tuple(found.event_shape) == (3, 4)
    assert same(found.support, integer_interval(0, 255))
    for name in ("train", "valid", "test"):
        evens = [int(x[0, 0]) % 20 == 0 for x in found.rows(name)[:]]
        assert found.labels[name] == ["even" if even else "odd" for even in evens]


def test_a_folder_with_parts_and_colors() -> None:
    for part, count in (("train", 5), ("valid", 2), ("test", 3)):
        for number in range(count):
            image(f"all/{part}/{number}.png", 10 * number, mode="RGB")
    image("all/test/grey.jpg", 7)
    found = read(Path("all"))
    assert found.labels == {}
    assert tuple(found.train.shape) == (5, 3, 3, 4)
    assert tuple(found.test.shape) == (4, 3, 3, 4)
    assert found.train[2, :, 0, 0].tolist() == [20, 0, 255]


BAD = {
    "missing.csv": (["1,2", "3,"], "row 2 misses a value"),
    "word.csv": (["a,b", "1,2", "3,many"], "row 3 holds 'many', which is no number"),
    "ragged.csv": (["1,2", "3,4,5"], "row 2 has 3 values, the first 2"),
    "nan.csv": (["1,2", "nan,3", *["1,2"] * 9], "NaN or infinite"),
    "empty.csv": ([], "is empty"),
    "one.csv": (["1,2"], "1 data are too few to split off 1 as test"),
    "no.npy": (["nothing"], "is damaged, or no .npy file"),
    "nowhere.csv": (None, "no such file or directory"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_table_of_numbers_is_refused(name: str) -> None:
    rows, words = BAD[name]
    if rows is not None:
        Path(name).write_text("\n".join(rows))
    with pytest.raises(UsageError, match=words):
        File(Path(name)).load()


def test_what_is_no_folder_of_images_is_refused() -> None:
    os.mkdir("empty")
    with pytest.raises(UsageError, match="empty: is a folder without images"):
        File(Path("empty")).load()
    image("sizes/a.png", 1)
    image("sizes/b.png", 1, size=(5, 5))
    with pytest.raises(UsageError, match=r"b\.png: images of 4x3 and 5x5 pixels"):
        read(Path("sizes"))
    image("parts/test/a.png", 1)
    with pytest.raises(UsageError, match="has folders test, but no train"):
        read(Path("parts"))
    text("hurt.png", ["nothing"])
    os.mkdir("hurt")
    os.rename("hurt.png", "hurt/hurt.png")
    with pytest.raises(UsageError, match="is no image that can be read"):
        read(Path("hurt"))
    np.save("flat.npy", np.arange(9))
    with pytest.raises(UsageError, match=r"flat.npy: holds int64 \[9\]"):
        read(Path("flat.npy"))


def test_what_was_loaded_does_not_change_with_its_file(tmp_path: Path) -> None:
    path, x = tmp_path / "x.npy", np.arange(120, dtype=np.uint8).reshape(40, 3)
    np.save(path, x)
    splits = read(path)
    with path.open("r+b") as file:  # the same file, which may still be mapped
        file.seek(-x.nbytes, 2)
        file.write(bytes(x.nbytes))
    found = torch.cat([splits.rows(name).kept for name in ("train", "valid", "test")])
    assert torch.equal(found.sort(0).values, torch.from_numpy(x))
