"""Every case has its test, and what reads and compares them does."""

import json
import math
from pathlib import Path

import pytest
from golden import FOLDER, KEPT, close, items, tensor

MISSING: dict[str, str] = {}
"""Cases without a test, and what the library does not have yet. A case that got its test leaves this list."""

TOLERANCE = {"abs": 0.1, "rel": 0.01}


def test_every_case_has_a_test() -> None:
    cases = {path.stem for folder in (KEPT, FOLDER) for path in folder.glob("*.json")}
    tested = {path.stem.removeprefix("test_") for path in KEPT.glob("test_*.py")}
    assert cases - tested == MISSING.keys(), "write test_<case>.py, or say in MISSING what the library lacks"


@pytest.mark.parametrize(
    ("got", "culprit"),
    [
        ({"a": 101.2, "b": [[1.0, 2.0]]}, r"^a is 101\.2, but 100\.0 is expected: off by 1\.2, not 1\.1"),
        ({"a": 100.0, "b": [[1.0, 2.2]]}, r"^b\[0\]\[1\] is 2\.2"),
        ({"a": 100.0, "b": tensor([[1.0, math.nan]])}, r"^b\[0\]\[1\] is nan"),
        ({"a": 100.0, "b": [[1.0, math.inf]]}, r"^b\[0\]\[1\] is inf"),
        ({"a": 100.0, "b": [[1.0]]}, r"^b\[0\] has 1 elements, but 2 are expected"),
        ({"a": 100.0}, r"^all has \['a'\], but \['a', 'b'\] are expected"),
        ({"a": 100.0, "b": [[1.0, 2.0]], "c": 1.0}, r"^all has \['a', 'b', 'c'\]"),
    ],
)
def test_the_first_culprit_is_named(got: object, culprit: str) -> None:
    expected = {"a": 100.0, "b": [[1.0, 2.0]]}
    close({"a": tensor(101.0), "b": tensor([[0.9, 2.1]])}, expected, TOLERANCE)
    with pytest.raises(AssertionError, match=culprit):
        close(got, expected, TOLERANCE)


def test_items_are_read_from_any_folder(tmp_path: Path) -> None:
    item = {"name": "one", "input": {"x": 1}, "expected": {"y": 2}}
    (tmp_path / "case.json").write_text(json.dumps({"tolerance": TOLERANCE, "items": [item]}))
    (found,) = items("case", tmp_path)
    assert found.id == "one"
    found.values[0].check(y=2.1)
    (absent,) = items("another", tmp_path)
    assert "has no another.json" in absent.marks[0].kwargs["reason"]
