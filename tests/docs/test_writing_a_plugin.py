"""The page that leads from an empty file to a passed exam tells the truth."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unibound.testing import Verdict
from unibound.testing.examine import examine, find

PAGE = (Path(__file__).parents[2] / "docs" / "writing-a-plugin.md").read_text()
DRAFTS = [
    block for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) if "hookimpl" in block
]
OUTPUTS = re.findall(r"^```text\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(autouse=True)
def _no_module_is_left_behind() -> Iterator[None]:
    yield
    sys.modules.pop("draft", None)


def verdicts(code: str, tmp_path: Path) -> list[Verdict]:
    path = tmp_path / "draft.py"
    path.write_text(code)
    return [finding.verdict for finding in examine(find(str(path)))]


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("number", range(2))
def test_a_wrong_draft_fails_as_the_page_says(number: int, tmp_path: Path) -> None:
    (failed,) = (verdict for verdict in verdicts(DRAFTS[number], tmp_path) if not verdict.held)
    shown, printed = flat(OUTPUTS[number]), f"FAILED {failed.law.replace('_', ' ')} {failed.detail}"
    # A norm of nothing but rounding differs from one machine to the next.
    rounding = r"\d\.\d+e-1\d"
    assert re.sub(rounding, "0", shown) == re.sub(rounding, "0", flat(printed))


@pytest.mark.parametrize("number", [2, 3])
def test_the_last_draft_and_the_prior_hold_every_law(number: int, tmp_path: Path) -> None:
    found = verdicts(DRAFTS[number], tmp_path)
    assert len(found) > 4
    assert [verdict for verdict in found if not verdict.held] == []


def test_the_page_shows_nothing_that_is_not_tested() -> None:
    assert len(DRAFTS) == 4
    assert len(OUTPUTS) == 2
