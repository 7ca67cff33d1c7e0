"""The page about cost shows what its script measures, and the script foretells what it can know."""

from pathlib import Path

import pytest
import scale

ROOT = Path(__file__).parents[2]


def test_the_page_has_a_row_for_all_that_is_measured() -> None:
    text = (ROOT / "docs" / "scale.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.count("|") == 10 and line[2:3].isalpha()][1:]
    assert [row[1].strip() for row in rows] == list(scale.QUANTITIES)
    for (_, sizes), row in zip(scale.QUANTITIES.values(), rows, strict=True):
        assert [*row[2].replace(" ", "").split(","), row[6].strip()] == list(map(str, sizes))
        foretold, found = (float(cell.split()[0]) for cell in row[7:9])
        assert float(row[9]) == pytest.approx(foretold / found, abs=0.01)


def test_a_fixed_part_is_told_from_what_grows() -> None:
    sizes = (25, 50, 100)
    assert scale.line(sizes, [3 + 2 * n for n in sizes]) == pytest.approx((2, 3))
    assert scale.line(sizes, [2 * n * n for n in sizes])[1] == 0  # which no line through zero fits
