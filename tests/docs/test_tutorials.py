"""Tutorials run from their first block to their last, and what they say of what comes out is so."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "tutorials"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.DOTALL | re.MULTILINE)


def first_run(names: dict[str, Any], printed: str) -> None:
    assert names["low"] < names["model"].result.nll < names["high"]
    assert names["of_digits"].mean() > names["of_noise"].mean() + 10
    assert printed.endswith("'traversals.png']\n")


def your_own(names: dict[str, Any], printed: str) -> None:
    for model in (names["model"], names["own"]):
        assert names["entropy"] < model.result.nll_high < 16 * math.log(2)
    assert names["right"] > 0.75
    assert "sgvb needs reparameterized samples" in printed


def how_good_is_it(names: dict[str, Any], printed: str) -> None:
    exact = -names["log_p"].mean().item()
    missed = names["found"]
    assert missed.nll - exact == pytest.approx(math.log(2), abs=0.1)  # a thousand particles, and still half is missing
    assert missed.interval.low is None
    assert names["looked"].interval.low < exact < names["looked"].interval.high
    certificate = names["certificate"]
    assert certificate.verdict == "certified"
    assert certificate.test_ll_low < -exact < certificate.test_ll_high
    assert abs(names["mended"].nll - exact) < 0.1


def rbm_certified(names: dict[str, Any], printed: str) -> None:
    certificate, mistaken = names["certificate"], names["mistaken"]
    assert certificate.verdict == names["again"].verdict == "certified"
    assert certificate.log_z_low < names["exact"] < certificate.log_z_high
    assert names["model"].result.nll_high > names["entropy"]
    assert "data as they are: " in printed
    assert mistaken.verdict == "refused"


def plugin(names: dict[str, Any], printed: str) -> None:
    assert "expected_gradient_is_exact" in printed
    assert "a 1/K perhaps, is wrong" in printed
    assert all(verdict.held for verdict in names["verdicts"])


CLAIMS: dict[str, Callable[[dict[str, Any], str], None]] = {
    claim.__name__.replace("_", "-"): claim for claim in (first_run, your_own, how_good_is_it, rbm_certified, plugin)
}


def test_every_tutorial_has_its_claims() -> None:
    assert set(PAGES) == set(CLAIMS)


@pytest.mark.parametrize("name", PAGES)
def test_a_tutorial_runs_and_holds_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {"__name__": "tutorial"}
    for code in BLOCK.findall(PAGES[name]):
        exec(compile(code, name, "exec"), names)
    CLAIMS[name](names, capsys.readouterr().out)


def test_a_page_becomes_cells_and_a_page_with_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nbclient", reason="needs nbclient, which makes the site")
    pytest.importorskip("ipykernel", reason="needs ipykernel, which makes the site")
    monkeypatch.syspath_prepend(FOLDER.parent)
    import notebooks  # pyright: ignore[reportMissingImports]

    text = "# Title\n\nSee [there](../python.md).\n\n```python\nprint(6 * 7)\n```\n\nAnd:\n\n```python\n1 + 1\n```\n"
    (tmp_path / "page.md").write_text(text)
    notebooks.write(tmp_path)
    shown = (tmp_path / "page.md").read_text()
    assert "[there](../python.md)" in shown
    assert "```text\n42\n```" in shown
    assert "```text\n2\n```" in shown
    kept = json.loads((tmp_path / "page.ipynb").read_text())
    assert [cell["cell_type"] for cell in kept["cells"]] == ["markdown", "code", "markdown", "code"]
    assert "See there." in "".join(kept["cells"][0]["source"])
    (tmp_path / "page.md").write_text("# Wrong\n\n```python\n1 / 0\n```\n")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        notebooks.write(tmp_path)
