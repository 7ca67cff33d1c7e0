"""A page in headless Chromium, and what it comes to there."""

import html
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import attrs
import pytest

QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
]

LOOK = """
onload = () => {
  const frame = document.getElementById("frame"), page = frame.contentDocument, root = page.documentElement;
  const ids = [...page.querySelectorAll("[id]")].map(one => one.id);
  const found = {
    overflow: root.scrollWidth - root.clientWidth,
    twice: ids.filter((id, at) => ids.indexOf(id) != at),
    broken: [...page.images].filter(one => !(one.complete && one.naturalWidth)).map(one => one.alt),
    requests: frame.contentWindow.performance.getEntriesByType("resource").map(one => one.name),
    background: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
  };
  document.body.innerHTML = "<pre id=found></pre>";
  document.getElementById("found").textContent = JSON.stringify(found);
};
"""


def chromium() -> str:
    """The browser; skips a test where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-headless-shell") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs Chromium, as Debian's package chromium")
    return found


def look(page: str, scratch: Path, width: int, *, dark: bool = False) -> dict[str, Any]:
    """What a page of HTML comes to in a frame so many pixels wide, and what it said on the console."""
    frame = f'<iframe id=frame style="border:0;width:{width}px;height:2000px" srcdoc="{html.escape(page)}"></iframe>'
    (scratch / "outer.html").write_text(f"<!doctype html><body>{frame}<script>{LOOK}</script>", encoding="utf-8")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    words = [chromium(), *QUIET, scheme, f"--user-data-dir={scratch}/profile", "--dump-dom"]
    done = subprocess.run([*words, (scratch / "outer.html").as_uri()], capture_output=True, text=True, check=True)
    _, _, rest = done.stdout.partition('<pre id="found">')
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(rest.partition("</pre>")[0])) | {"console": console}


@attrs.frozen
class Window:
    """A browser that is driven in real time, where what a page does takes some, as workers do.

    Args:
        url: of its session, as WebDriver has it: https://www.w3.org/TR/webdriver2/
    """

    url: str

    def visit(self, url: str) -> None:
        """Load a page."""
        ask(f"{self.url}/url", {"url": url})

    def run(self, script: str, *args: str) -> Any:
        """Run a script, and wait for what it hands to the last of its arguments."""
        return ask(f"{self.url}/execute/async", {"script": script, "args": args})


@contextmanager
def window() -> Iterator[Window]:
    """A browser of one's own; skips a test where there is none that can be driven."""
    if (program := shutil.which("chromedriver")) is None:
        pytest.skip("needs chromedriver, as Debian's package chromium-driver")
    options = {"binary": chromium(), "args": ["--headless", "--no-sandbox", "--disable-gpu"]}
    with subprocess.Popen([program, "--port=0"], stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout is not None
            said = next(line for line in driver.stdout if "successfully on port" in line)
            home = f"http://127.0.0.1:{int(said.rsplit(maxsplit=1)[1].rstrip('.'))}/session"
            asked = {"goog:chromeOptions": options, "timeouts": {"script": 120_000}}
            url = f"{home}/{ask(home, {'capabilities': {'alwaysMatch': asked}})['sessionId']}"
            try:
                yield Window(url)
            finally:
                ask(url, method="DELETE")
        finally:
            driver.terminate()


def ask(url: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
    """What WebDriver answers."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, {"Content-Type": "application/json"}, method=method)) as answer:
        return json.loads(answer.read())["value"]
