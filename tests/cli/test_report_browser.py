"""The report of a run in a browser: nothing is wider than the screen, loaded from elsewhere, or complained about."""

from pathlib import Path

import pytest
from browser import look
from running import Cli, Words


@pytest.mark.slow
def test_it_fits_and_is_quiet_in_light_and_dark(cli: Cli, tiny: Words, tmp_path: Path) -> None:
    assert cli(*tiny()).code == 0
    assert cli("report", "run").code == 0
    page = Path("run/report.html").read_text(encoding="utf-8")
    backgrounds = set()
    for width in (390, 1440):
        for dark in (False, True):
            found = look(page, tmp_path, width, dark=dark)
            backgrounds.add(found.pop("background"))
            assert found == {"overflow": 0, "twice": [], "broken": [], "requests": [], "console": []}
    assert len(backgrounds) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("planted", "what"),
    [
        ("<div style='width: 500px'>wide</div>", "overflow"),
        ("<p id=one></p><p id=one></p>", "twice"),
        ("<img alt=gone src='data:image/png;base64,AAAA'>", "broken"),
        ("<script>nothing()</script>", "console"),
        ("<img alt=elsewhere src='http://127.0.0.1:9/picture.png'>", "requests"),
    ],
)
def test_what_is_wrong_is_seen(planted: str, what: str, tmp_path: Path) -> None:
    found = look(f"<!doctype html><html><body>{planted}</body></html>", tmp_path, 390)
    assert found[what]
