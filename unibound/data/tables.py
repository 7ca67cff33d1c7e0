"""Data sets of the user's in one array, table or folder of images, with the labels of its data where there are some.

Shapes: N data, *X one datum.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unibound.data.missing import Missing, splits_of, whole
from unibound.data.rows import Rows, spread
from unibound.data.splits import PARTS, Splits
from unibound.errors import UsageError
from unibound.support import Constraint, integer_interval

LABELS = ("label", "class", "target")
"""Names of the column that is no datum, but says of which class one is."""
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
SUFFIXES = (".npy", ".csv", ".tsv", ".parquet")


def read(path: Path, missing: Missing = "refuse") -> Splits:
    """Read an array (.npy), a table (.csv, .tsv, .parquet) or a folder of images.

    Of what comes in one piece every tenth datum tests, and every tenth of the others validates. A folder may have
    folders train, valid and test instead; below them, or else at its top, a folder is a class. A table has a row for
    each datum; a first line that holds words names its columns, and one that is called label, class or target is none
    of the data.

    Args:
        path: the file or folder.
        missing: `nan` if NaN is an element that is missing, as is one whose cell is empty.

    Raises:
        UsageError: what is missing or damaged, or holds something else than numbers or images of one size.
    """
    if path.is_dir():
        return _images(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file or directory; check the path")
    labels: list[str] = []
    if path.suffix == ".npy":
        x = _array(path)
    elif path.suffix == ".parquet":
        x, labels = _parquet(path, missing)
    else:
        x, labels = _text(path, "\t" if path.suffix == ".tsv" else ",", missing)
    if x.ndim < 2 or x.dtype.kind not in "buif":
        raise UsageError(f"{path}: holds {x.dtype} {list(x.shape)}; it must be numbers [count, pixels...]")
    return parted(path, {"train": x}, {"train": labels} if labels else {}, missing=missing)


def parted(
    path: Path | str,
    parts: dict[str, np.ndarray],
    labels: dict[str, list[str]],
    over: Constraint | None = None,
    missing: Missing = "refuse",
) -> Splits:
    """Three parts of what may be fewer; labels go with their data."""
    rows = {name: Rows.of(x) for name, x in parts.items()}
    at = {name: torch.arange(len(x)) for name, x in rows.items()}
    words = {name: labels.get(name, []) for name in parts}
    for name in ("test", "valid"):
        if name not in parts:
            count = max(1, len(at["train"]) // 10)
            if len(at["train"]) <= count:
                raise UsageError(f"{path}: {len(at['train'])} data are too few to split off {count} as {name}")
            at[name] = spread(at["train"], count)
            at["train"] = at["train"][~torch.isin(at["train"], at[name])]
            words[name] = words["train"]  # of the same list, at other places
    made = dict(rows)
    for name in PARTS:
        if name not in parts or len(at[name]) < len(rows[name]):
            made[name] = rows["train"].part(at[name])  # once each, out of what may be a file
    known = {} if over is None else {"support": over}
    kept = {name: [words[name][place] for place in at[name].tolist()] for name in PARTS if words[name]}
    return (splits_of if missing == "nan" else whole)(made, source=str(path), labels=kept, **known)


def _array(path: Path) -> np.ndarray:
    try:
        # Mapped, and not read: what is split off it is copied once.
        found = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path}: is damaged, or no .npy file of numbers: {str(error).splitlines()[0]}") from error
    if not isinstance(found, np.ndarray):
        raise UsageError(f"{path}: holds several arrays; call it .npz")
    return found


def _text(path: Path, mark: str, missing: Missing) -> tuple[np.ndarray, list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file, delimiter=mark) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: is not readable as a table: {error}") from error
    if not lines:
        raise UsageError(f"{path}: is empty; write a row for each datum")
    names = [] if all(map(_is_number, lines[0])) else [name.strip() for name in lines[0]]
    rows = lines[1:] if names else lines
    at = _label_at(names)
    numbers = np.empty((len(rows), len(lines[0]) - (at is not None)), dtype=np.float32)
    for place, line in enumerate(rows):
        where = f"{path}: row {place + 1 + bool(names)}"
        if len(line) != len(lines[0]):
            raise UsageError(f"{where} has {len(line)} values, the first {len(lines[0])}; give every datum as many")
        own = [word for index, word in enumerate(line) if index != at]
        if missing == "nan":
            own = [word if word.strip() else "nan" for word in own]
        for word in own:
            if not _is_number(word):
                what = "misses a value" if not word.strip() else f"holds {word.strip()!r:.40}, which is no number"
                cure = 'mend or drop it, or say missing="nan"' if not word.strip() else "mend or drop it"
                raise UsageError(f"{where} {what}; {cure}")
        numbers[place] = own
    return numbers, [line[at] for line in rows] if at is not None else []


def _parquet(path: Path, missing: Missing) -> tuple[np.ndarray, list[str]]:
    try:
        from pyarrow import ArrowException, parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError(f"{path} needs pyarrow; pip install 'unibound[parquet]'") from error
    try:
        table = parquet.read_table(path)
    except (OSError, ArrowException) as error:
        raise UsageError(f"{path}: is damaged, or no .parquet file: {str(error).splitlines()[0]:.120}") from error
    at = _label_at(table.column_names)
    columns = {name: table.column(name) for place, name in enumerate(table.column_names) if place != at}
    for name, column in columns.items():
        if column.null_count and missing != "nan":
            raise UsageError(f"{path}: column {name} misses {column.null_count} values; mend or drop them")
    found = [column.to_numpy() for column in columns.values()]
    if strange := [name for name, x in zip(columns, found, strict=True) if x.dtype.kind not in "buif"]:
        raise UsageError(f"{path}: column {strange[0]} holds no numbers; drop it, or call it label")
    labels = [] if at is None else [str(word) for word in table.column(at).to_pylist()]
    return np.stack(found, 1), labels


def _label_at(names: Sequence[str]) -> int | None:
    return next((place for place, name in enumerate(names) if name.lower() in LABELS), None)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _images(path: Path) -> Splits:
    named = [name for name in PARTS if (path / name).is_dir()]
    if named and "train" not in named:
        raise UsageError(f"{path}: has folders {', '.join(named)}, but no train")
    parts, labels = {}, {}
    for name in named or ["train"]:
        folder = path / name if named else path
        files = list(_files(folder))
        if not files:
            raise UsageError(
                f"{folder}: is a folder without images ({', '.join(IMAGES[:3])}, ...); name one, or a file"
            )
        parts[name] = images(_opened(files))
        if all(file.parent != folder for file in files):
            labels[name] = [file.parent.name for file in files]
    return parted(path, parts, labels, integer_interval(0, 255))


def _files(folder: Path) -> Iterator[Path]:
    """The images in a folder and those in it, in the order of their names."""
    return (file for file in sorted(folder.rglob("*")) if file.suffix.lower() in IMAGES and file.is_file())


def _opened(files: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    from PIL import Image, UnidentifiedImageError

    for file in files:
        try:
            with Image.open(file) as image:
                image.load()
                yield str(file), image
        except (OSError, UnidentifiedImageError) as error:
            raise UsageError(f"{file}: is no image that can be read: {str(error)[:120]}") from error


def images(found: Iterable[tuple[str, Any]]) -> np.ndarray:
    """Images of PIL, each with where it is from: grey [N, H, W] or, where one is in color, all [N, 3, H, W], uint8.

    Raises:
        UsageError: what is none, or images of several sizes.
    """
    made: list[np.ndarray] = []
    for where, image in found:
        if not hasattr(image, "convert"):
            raise UsageError(f"{where}: is a {type(image).__name__}, and no image")
        made.append(np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB")))
        if made[-1].shape[:2] != made[0].shape[:2]:
            sizes = " and ".join("x".join(map(str, x.shape[1::-1])) for x in (made[0], made[-1]))
            raise UsageError(f"{where}: images of {sizes} pixels; bring all to one size")
    if all(x.ndim == 2 for x in made):
        return np.stack(made)
    wide = [x if x.ndim == 3 else np.repeat(x[..., None], 3, 2) for x in made]
    return np.stack(wide).transpose(0, 3, 1, 2)
