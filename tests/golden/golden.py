"""Golden cases: exact numbers, computed by enumeration or with 60 digits, which the library must reproduce.

One file per kind, `<case>.json`, and one test module per file, `test_<case>.py`, that runs every item of it. The files
are read from the folder that the environment variable UNIBOUND_GOLDEN_DIR names, else from this one.
"""

import json
import os
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

KEPT = Path(__file__).parent
FOLDER = Path(os.environ.get("UNIBOUND_GOLDEN_DIR") or KEPT)


@attrs.frozen
class Item:
    """What goes in, what must come out, and how nearly."""

    name: str
    input: dict[str, Any]
    expected: dict[str, Any]
    tolerance: dict[str, float]

    def check(self, **got: Any) -> None:
        """Hold everything that is expected, and nothing else, against what came out."""
        close(got, self.expected, self.tolerance)


def items(case: str, folder: Path = FOLDER) -> list[Any]:
    """The parameters of a test: every item of a case by its name, or a skipped one where there is no such file."""
    path = folder / f"{case}.json"
    if not path.exists():
        return [pytest.param(None, id="absent", marks=pytest.mark.skip(reason=f"{folder} has no {path.name}"))]
    found = json.loads(path.read_text())
    read = [Item(item["name"], item["input"], item["expected"], found["tolerance"]) for item in found["items"]]
    return [pytest.param(item, id=item.name) for item in read]


def close(got: Any, expected: Any, tolerance: dict[str, float], at: str = "") -> None:
    """Raise AssertionError, naming the first culprit, unless |got - expected| <= abs + rel |expected| throughout.

    Args:
        got: a number, or dicts, lists and tensors of numbers.
        expected: the same, of numbers in dicts and lists.
        tolerance: `abs` and `rel`.
        at: where in the whole this is, for the message.
    """
    got = got.tolist() if isinstance(got, Tensor) else got
    if isinstance(expected, dict):
        assert got.keys() == expected.keys(), f"{at or 'all'} has {[*got]}, but {[*expected]} are expected"
        for name, value in expected.items():
            close(got[name], value, tolerance, f"{at}.{name}".removeprefix("."))
    elif isinstance(expected, list):
        assert len(got) == len(expected), f"{at} has {len(got)} elements, but {len(expected)} are expected"
        for index, pair in enumerate(zip(got, expected, strict=True)):
            close(*pair, tolerance, f"{at}[{index}]")
    else:
        allowed = tolerance["abs"] + tolerance["rel"] * abs(expected)
        off = abs(got - expected)
        assert off <= allowed, f"{at} is {got!r}, but {expected!r} is expected: off by {off:.3g}, not {allowed:.3g}"


def tensor(values: Any) -> Tensor:
    """Numbers of an input in float64."""
    return torch.as_tensor(values, dtype=torch.float64)
