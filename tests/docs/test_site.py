"""The documentation site: a page for whatever is registered or public, no link into nothing, nothing from elsewhere."""

import functools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Thread
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest
from browser import window

import unibound
from unibound import registries
from unibound.cli.matrix import Cell

ROOT = Path(__file__).parents[2]
LOADS = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src")}


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = spec_from_file_location("pages", ROOT / "docs" / "pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def written(pages: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site") / "docs"
    pages.main(target, matrix=False, outputs=False)
    return target


def test_every_plugin_and_every_public_name_has_a_page(written: Path) -> None:
    zoo = (written / "zoo" / "index.md").read_text()
    for kind, registry in registries().items():
        for name in registry:
            assert f"({kind}-{name}.md)" in zoo
            assert (written / "zoo" / f"{kind}-{name}.md").exists()
    shown = "".join(path.read_text() for path in (written / "api").glob("*.md"))
    assert {name for name in unibound.__all__ if f".{name}\n" not in shown} == set()


def test_a_plugin_s_page_holds_what_show_says_and_what_it_goes_with(pages: ModuleType) -> None:
    own = [Cell("vimco", "rbm", "mlp", None), Cell("vimco", "gaussian", "mlp", "it is refused")]
    text = pages.plugin("estimator", "vimco", registries()["estimator"]["vimco"], own)
    for part in ("| `--estimator.num-particles` | `10` |", "## Needs", "Mnih and Rezende", "| `mlp` | `rbm` |"):
        assert part in text
    assert "gaussian" not in text


def test_pages_link_to_pages_that_are_there(written: Path) -> None:
    found = 0
    for page in written.rglob("*.md"):
        for link in re.findall(r"\]\(([\w./-]+\.(?:md|png))", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
            found += 1
    assert found > 80


def test_every_page_of_the_menu_is_there_and_every_guide_in_it(written: Path) -> None:
    menu = str(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"])
    named = set(re.findall(r"'([\w./-]+\.md)'", menu))
    assert all((written / name).exists() for name in named)
    pages = [*written.glob("*.md"), *written.glob("tutorials/*.md")]
    assert {str(path.relative_to(written)) for path in pages} <= named


class Links(HTMLParser):
    """What a page loads, and where it leads to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("rel") in ("canonical", "next", "prev"):
            return
        self.loads += [value for name, value in attrs if (tag, name) in LOADS and value]
        self.leads += [value for name, value in attrs if (tag, name) == ("a", "href") and value]


@pytest.fixture(scope="module")
def site(written: Path) -> Path:
    if find_spec("zensical") is None:
        pytest.skip("zensical is not installed")
    home = written.parent
    for name in ("unibound", "plugins"):
        shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "zensical.toml").read_text()
    (home / "zensical.toml").write_text(text.replace('"build/docs"', '"docs"'))
    program = Path(sys.executable).with_name("zensical")
    done = subprocess.run([program, "build", "--strict"], cwd=home, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return home / "site"


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere_and_has_no_dead_link(site: Path) -> None:
    assert "VIMCO" in (site / "search.json").read_text()
    for page in site.rglob("*.html"):
        links = Links(page.read_text())
        assert [url for url in links.loads if urlsplit(url).scheme not in ("", "data")] == [], page
        base = site if page.name == "404.html" else page.parent
        for url in [*links.loads, *links.leads]:
            parts = urlsplit(url)
            if parts.scheme or not parts.path:
                continue
            at = site / parts.path[1:] if parts.path.startswith("/") else base / unquote(parts.path)
            assert at.exists(), f"{page.relative_to(site)} leads to {url}"


SEARCH = """
const [word, done] = arguments;
const inside = one => one.shadowRoot ? [one, ...every(one.shadowRoot)] : [one];
const every = root => [...root.querySelectorAll("*")].flatMap(inside);
const until = (ready, then) => { const found = ready(); found ? then(found) : setTimeout(until, 100, ready, then); };
document.querySelector(".md-search__button").click();
until(() => every(document).find(one => one.tagName == "INPUT" && one.placeholder == "Search"), field => {
  field.value = word;
  field.dispatchEvent(new Event("input", {bubbles: true, composed: true}));
  const links = () => every(field.getRootNode()).filter(one => one.tagName == "A").map(one => one.href);
  until(() => links().length && links(), done);
});
"""
FORMULAS = """
const shown = [...document.querySelectorAll("pre")].filter(one => one.innerText.includes("log") && one.offsetHeight);
const asked = performance.getEntriesByType("resource").map(one => one.name);
arguments[0]([shown.length, asked, document.documentElement.scrollWidth - innerWidth]);
"""


@pytest.mark.slow
def test_in_a_browser_the_search_finds_what_one_types(site: Path) -> None:
    handler = functools.partial(Quiet, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, window() as browser:
        Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}"
        browser.visit(f"{home}/index.html")
        found = browser.run(SEARCH, "vimco")
        assert urlsplit(found[0]).path == "/zoo/estimator-vimco/"
        assert all(url.startswith(home) for url in found)
        browser.visit(f"{home}/theory/index.html")
        formulas, asked, overflow = browser.run(FORMULAS)  # text as it stands, which nothing has to render
        assert formulas
        assert all(url.startswith(home) for url in asked)
        assert overflow <= 0
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, and says nothing of it."""

    def log_message(self, format: str, *args: object) -> None:
        pass
