"""Data sets of others' libraries by their names: hf:NAME, of `datasets` (Hugging Face), and torchvision:NAME.

Shapes: N data, *X one datum.
"""

import inspect
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from unibound.data.download import data_home
from unibound.data.splits import DataSet, Splits
from unibound.data.tables import LABELS, images, parted
from unibound.errors import UniboundError, UsageError
from unibound.support import integer_interval

HF, TORCHVISION = "hf:", "torchvision:"
_PARTS = {"train": ("train",), "valid": ("validation", "valid", "val", "dev"), "test": ("test",)}
"""What parts are called by those who share data."""


@attrs.frozen
class Hub(DataSet):
    """A data set of another library, with its labels; what is downloaded it keeps where it keeps such.

    Parts that it lacks are split off: every tenth datum tests, every tenth of the others validates.

    Args:
        source: hf:NAME, or a folder as hf:./FOLDER, of `datasets`; torchvision:NAME of torchvision.datasets.
        subset: of hf:NAME, where it has several.
        column: of hf:NAME, which holds the data; by default the first of images or lists, or else all of numbers.

    Raises:
        UsageError: a library that is not installed, an unknown name, or data that are no images of one size or numbers.
        UniboundError: it cannot be had, as where there is no network.
    """

    source: str
    subset: str = ""
    column: str = ""

    def load(self) -> Splits:
        """Fetch the data, or read them where they were fetched before."""
        if self.source.startswith(HF):
            return self._hf(self.source.removeprefix(HF))
        return self._torchvision(self.source.removeprefix(TORCHVISION))

    def _hf(self, name: str) -> Splits:
        found = self._called(_library("datasets", self.source, "hf").load_dataset, name, self.subset or None)
        found = found if isinstance(found, Mapping) else {"train": found}
        at = {part: next((name for name in names if name in found), None) for part, names in _PARTS.items()}
        if at["train"] is None:
            raise UsageError(f"{self.source} has parts {', '.join(found)}, but no train; take another data set")
        parts, labels, grey = {}, {}, True
        for part, key in at.items():
            if key is not None:
                parts[part], labels[part], grey = _columns(self.source, found[key], self.column)
        over = integer_interval(0, 255) if grey else None
        return parted(self.source, parts, {part: names for part, names in labels.items() if names}, over)

    def _torchvision(self, name: str) -> Splits:
        known = _library("torchvision.datasets", self.source, "torchvision")
        classes = {key.lower(): value for key, value in vars(known).items() if isinstance(value, type)}
        if (cls := classes.get(name.lower())) is None:
            raise UsageError(f"{self.source}: torchvision has no data set {name!r}; there is MNIST, for example")
        takes = inspect.signature(cls).parameters
        fetched = {"download": True} if "download" in takes else {}
        wanted = {"train": {"train": True}, "test": {"train": False}} if "train" in takes else {}
        if "split" in takes:
            wanted = {"train": {"split": "train"}, "test": {"split": "test"}}
        parts, labels = {}, {}
        for part, chosen in (wanted or {"train": {}}).items():
            found = self._called(cls, str(data_home() / "torchvision"), **chosen, **fetched)
            pairs = [found[index] for index in range(len(found))]
            parts[part] = images((f"{self.source}: {part} {index}", pair[0]) for index, pair in enumerate(pairs))
            names = getattr(found, "classes", None)
            labels[part] = [_named(pair[1], names) for pair in pairs]
        return parted(self.source, parts, labels, integer_interval(0, 255))

    def _called(self, what: Any, *values: Any, **words: Any) -> Any:
        try:
            return what(*values, **words)
        except Exception as error:  # of a network and of libraries that raise their own kinds
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UniboundError(f"{self.source} cannot be had: {reason:.200}") from error


def is_hub(text: str) -> bool:
    """Whether text names a data set of another library."""
    return text.startswith((HF, TORCHVISION))


def absolute(text: str) -> str:
    """The same name, to be read from any folder."""
    name = text.removeprefix(HF)
    local = text.startswith(HF) and name.startswith((".", "/", "~"))
    return f"{HF}{Path(name).expanduser().absolute()}" if local else text


def _library(name: str, source: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise UsageError(f"{source} needs {name.partition('.')[0]}; pip install 'unibound[{extra}]'") from None


def _columns(source: str, found: Any, column: str) -> tuple[np.ndarray, list[str], bool]:
    """Data of one part, their labels, and whether they are images."""
    names = list(found.column_names)
    if column and column not in names:
        raise UsageError(f"{source} has no column {column!r} among {', '.join(names)}; name one of these")
    label = next((name for name in names if name.lower() in LABELS and name != column), None)
    first = found[0]
    inner = [name for name in names if name != label and not np.isscalar(first[name]) and first[name] is not None]
    numbers = [name for name in names if name != label and isinstance(first[name], int | float)]
    labels = (
        [] if label is None else [_named(one, getattr(found.features[label], "names", None)) for one in found[label]]
    )
    if chosen := ([column] if column else inner[:1]):
        values: Sequence[Any] = list(found[chosen[0]])
        if hasattr(values[0], "convert"):
            return images((f"{source}: {index}", one) for index, one in enumerate(values)), labels, True
        return _stacked(f"{source}: {chosen[0]}", values), labels, False
    if not numbers:
        raise UsageError(f"{source} has columns {', '.join(names)}, but none of images or numbers; name --data.column")
    return _stacked(source, list(zip(*(found[name] for name in numbers), strict=True))), labels, False


def _stacked(where: str, values: Sequence[Any]) -> np.ndarray:
    try:
        made = np.asarray(values)
    except ValueError as error:  # rows of unequal lengths
        raise UsageError(f"{where} holds data of different shapes; bring all to one") from error
    if made.dtype.kind not in "buif":
        raise UsageError(f"{where} holds {made.dtype}, not numbers; name a column that does")
    return made if made.ndim > 1 else made[:, None]


def _named(label: Any, names: Sequence[str] | None) -> str:
    return str(names[int(label)] if names is not None and isinstance(label, int) else label)
