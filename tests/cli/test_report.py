"""The page about a run: it holds all there is, needs nothing else, and says when there is less."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from running import Cli, Words, refused

from unibound import Run
from unibound.report.panels import PANELS
from unibound.settings import sources

VOID = {"meta", "img", "br", "link", "input", "path", "use", "rect", "circle"}


class Page(HTMLParser):
    """What a browser would make of a page: its text, what it loads, and whether its elements close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}
        self.loads: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["title"]):
            self.words.append(data)


def page(cli: Cli, folder: str = "run") -> Page:
    """The page of a run, which stands by itself."""
    result = cli("report", folder)
    assert result.code == 0, result.err
    path = Path(folder) / "report.html"
    assert result.out == f"{path}\n"
    assert 25_000 < path.stat().st_size < 500_000
    read = Page(path.read_text(encoding="ascii"))
    assert read.open == []
    assert "script" not in read.seen
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in read.loads)
    assert not re.search(r"url\((?!#)|@import", path.read_text())
    stands_for_all(path.read_text(), read)
    return read


def stands_for_all(text: str, read: Page) -> None:
    """What a reader of the screen, and a link into the page, needs of it."""
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {target[1:] for target in read.loads if target.startswith("#")} <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)
    assert read.seen["main"] == read.seen["h1"] == 1
    assert text.count("<svg ") == len(re.findall(r'<svg role="img" aria-label="[^"]+', text))
    assert text.count("<img ") == len(re.findall(r'<img [^>]*alt="[^"]{10,}"', text))


def test_page_of_a_finished_run(cli: Cli, tiny: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["unibound", "run"])  # what env.json calls the command
    document = json.loads(cli(*tiny(epochs=7), "--json").out)
    read = page(cli)
    conclusion = document["conclusion"]
    assert conclusion[:1].upper() + conclusion[1:] in read.text
    for text in (
        f"{document['nll']:.3f}", f"{document['train_nll']:.3f}", "by ais",
        "data.npz; model mlp, prior rbm; vimco for 7 epochs; seed 0", "-bound, training", "validation NLL", "closer",
        "Saturated bits of q", "Active units", "Free energy", "Mixing of the chains", "log Z",
        json.loads(Path("run/env.json").read_text())["data_sha256"], "command unibound", "validate_every = 2",
    ):  # fmt: skip
        assert text in read.text, text
    assert read.seen["img"] == 5 + len(list(Path("run/film").iterdir()))
    assert read.seen["svg"] == 2 + 10


def test_the_same_run_gives_the_same_page(cli: Cli, tiny: Words) -> None:
    assert cli(*tiny()).code == 0
    page(cli)
    first = Path("run/report.html").read_bytes()
    assert cli("report", "run", "--output", "other.html").out == "other.html\n"
    assert Path("other.html").read_bytes() == first


def test_page_of_an_interrupted_run(cli: Cli, tiny: Words) -> None:
    assert cli(*tiny(epochs=4)).code == 0
    run = Run.create(Path("part"), sources.resolve([sources.read(Path("run/resolved.toml"))]))
    read = Page(report_of(cli, "part"))
    assert "Not finished: 0 of 4 epochs are done" in read.text
    assert "svg" not in read.seen
    epochs = run.train()
    for _ in range(3):
        next(epochs)
    with Path("part/metrics.jsonl").open("a") as file:
        file.write('{"done": 4, "sta')  # a line that is being written
    read = Page(report_of(cli, "part"))
    assert "Not finished: 3 of 4 epochs are done" in read.text
    assert "test NLL" not in read.text
    assert (read.seen["svg"], read.seen["img"]) == (11, 1 + 2)  # chains, and a frame for each of two looks


def report_of(cli: Cli, folder: str) -> str:
    """The text of a page."""
    result = cli("report", folder)
    assert result.code == 0, result.err
    return (Path(folder) / "report.html").read_text()


@pytest.mark.parametrize(
    ("flags", "without", "there", "absent"),
    [
        (
            {"model": "identity", "estimator": "cd"},
            ("model", "estimator"),
            {"Reconstruction by the prior", "validation NLL"},
            {"Active units", "Saturated bits of q", "-bound"},
        ),
        (
            {"prior": "gaussian", "estimator": "sgvb"},
            ("prior", "estimator"),
            {"Active units", "0, the prior is normalized", "-bound"},
            {"Saturated bits of q", "Free energy", "persistent chains"},
        ),
    ],
    ids=["plain rbm", "gaussian"],
)
def test_page_shows_what_there_is(
    cli: Cli, tiny: Words, flags: dict[str, str], without: tuple[str, ...], there: set[str], absent: set[str]
) -> None:
    assert cli(*tiny(without=without, **flags)).code == 0
    text = page(cli).text
    assert {words for words in there if words not in text} == set()
    assert {words for words in absent if words in text} == set()


@pytest.mark.parametrize(
    ("count", "shown"), [(0, []), (1, [1]), (4, [1, 2, 3, 4]), (5, [1, 2, 4, 5]), (10, [1, 4, 7, 10])]
)
def test_layers_are_shown_from_the_first_to_the_last(count: int, shown: list[int]) -> None:
    looked = {"done": 1, **{f"nats_of_layer_{layer}": -1.0 for layer in range(1, count + 1)}}
    (panel,) = [panel for panel in PANELS if "layer" in panel.title]
    assert [curve.label for curve in panel.curves([looked, {"done": 2}])] == [f"layer {layer}" for layer in shown]


def test_of_one_particle_no_sample_size_is_said(cli: Cli, tiny: Words) -> None:
    assert cli(*tiny(without=("prior",), estimator="sgvb", estimator__num_particles=1, prior="gaussian")).code == 0
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [line["ess"] for line in lines] == [None] * len(lines)
    assert lines[-1]["valid_ess"] >= 1


def test_stages_are_marked(cli: Cli, tiny: Words) -> None:
    words = tiny(without=("estimator",))
    at = words.index("--epochs")
    stages = '[[stage]]\nepochs = 3\nestimator = "autoencoder"\ntrains = ["q", "generator"]\n[[stage]]\nepochs = 2\n'
    Path("stages.toml").write_text(stages)
    assert cli(*words[:at], *words[at + 2 :], "--config", "stages.toml").code == 0
    read = page(cli)
    assert "autoencoder for 3, then vimco for 2 epochs" in read.text
    assert "autoencoder vimco" in read.text  # above the curves


def test_a_folder_may_have_any_name(cli: Cli, tiny: Words) -> None:
    name = "a<script>alert(1)<b> & é"
    assert cli(*tiny(name)).code == 0
    assert name in page(cli, name).text


def test_refuses_what_is_no_run_and_no_file(cli: Cli, tiny: Words) -> None:
    Path("empty").mkdir()
    refused(cli("report", "empty"), "empty is not the folder of a run: it holds no resolved.toml")
    refused(cli("report", "nowhere"), "nowhere is not the folder of a run")
    assert cli(*tiny()).code == 0
    refused(cli("report", "run", "--output", "no/such/page.html"), "--output no/such/page.html", "existing folder")
    refused(cli("report", "run", "--output", "empty"), "--output empty is no file")
    for name in ("page.pdf", "page.tar.gz", "page.png"):
        refused(cli("report", "run", "--output", name), f"--output {name}: a report is an HTML page")
        assert not Path(name).exists()
    Path("run/evaluation.json").write_text("{")
    refused(cli("report", "run"), "run/evaluation.json is no result of a run", "remove it, and --resume run")


def test_several_runs_on_one_page(cli: Cli, tiny: Words) -> None:
    for run, seed in (("one", 1), ("two", 2)):
        words = tiny(run, without=("estimator", "prior"), seed=seed, epochs=2, prior="gaussian", estimator="sgvb")
        assert cli(*words).code == 0
    assert cli("report", "one", "two", "--output", "both.html").out == "both.html\n"
    text = Path("both.html").read_text(encoding="ascii")
    read = Page(text)
    assert read.open == []
    stands_for_all(text, read)
    found = json.loads(cli("compare", "one", "two", "--json").out)["runs"][1]
    assert f"{found['difference']:+.3f} ± {found['stderr']:.3f}" in read.text
    assert (read.seen["svg"], read.seen["img"]) == (1, 2)
    assert "one: from" in text
    refused(cli("report", *["one"] * 5), "at most 4 runs")
    refused(cli("report", "one", "two", "--output", "no/such.html"), "existing folder")


def test_what_is_seen_in_a_picture_is_said(cli: Cli, tiny: Words) -> None:
    assert cli(*tiny(epochs=3, validate_every=1)).code == 0
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    words = f"validation NLL: from {lines[0]['valid_nll']:.4g} at epoch 1 to {lines[-1]['valid_nll']:.4g} at epoch 3."
    assert words in report_of(cli, "run")
