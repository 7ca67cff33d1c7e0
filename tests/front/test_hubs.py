"""Data sets of other libraries by their names; the libraries are made up here, with what is used of them."""

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from PIL import Image

import unibound
from unibound import UniboundError, UsageError
from unibound.data.hubs import Hub

RNG = np.random.default_rng(0)
PICTURES = [Image.fromarray(x) for x in RNG.integers(0, 256, (60, 4, 4), dtype=np.uint8)]
SMALL: dict[str, Any] = {
    "model": {"name": "mlp", "num_latents": 4, "hidden": [8]},
    "estimator": "vimco",
    "prior": "bernoulli",
    "epochs": 1,
    "num_particles": 5,
    "progress": False,
}


@attrs.frozen
class Part:
    """One part of a data set of `datasets`: columns by their names, and rows by number."""

    columns: dict[str, list[Any]]
    features: dict[str, Any]

    @property
    def column_names(self) -> list[str]:
        return list(self.columns)

    def __getitem__(self, key: str | int) -> Any:
        return self.columns[key] if isinstance(key, str) else {name: found[key] for name, found in self.columns.items()}


def part(start: int, end: int, **columns: Any) -> Part:
    labels = [index % 3 for index in range(start, end)]
    every = {name: list(found[start:end]) for name, found in columns.items()} | {"label": labels}
    return Part(every, dict.fromkeys(every) | {"label": types.SimpleNamespace(names=["cat", "dog", "owl"])})


@pytest.fixture
def hf(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A module called datasets; what is known to it by name, and what was asked last."""
    known: dict[str, Any] = {
        "pictures": {"train": part(0, 40, image=PICTURES), "test": part(40, 60, image=PICTURES)},
        "lists": {
            "train": part(0, 50, x=RNG.normal(size=(60, 3)).tolist(), id=list(range(60))),
            "validation": part(50, 55, x=RNG.normal(size=(60, 3)).tolist(), id=list(range(60))),
            "test": part(55, 60, x=RNG.normal(size=(60, 3)).tolist(), id=list(range(60))),
        },
        "numbers": {"train": part(0, 60, a=RNG.normal(size=60).tolist(), b=list(range(60)))},
        "words": {"train": part(0, 60, text=["a"] * 60)},
        "untrained": {"test": part(0, 60, a=list(range(60)))},
        "ragged": {"train": part(0, 3, x=[[1], [1, 2], [1]])},
        "sizes": {"train": part(0, 2, image=[PICTURES[0], PICTURES[0].resize((3, 3))])},
    }
    fake = types.ModuleType("datasets")

    def load_dataset(name: str, subset: str | None) -> Any:
        known["asked"] = (name, subset)
        if name not in known:
            raise ConnectionError("no\nnetwork")
        return known[name]

    vars(fake).update(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return known


class Faces:
    """A data set as torchvision has them."""

    classes = ("happy", "sad")

    def __init__(self, root: str, train: bool = True, transform: object = None, download: bool = False) -> None:
        assert download
        self.found = PICTURES[:40] if train else PICTURES[40:]

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.found[index], index % 2


class Digits(Faces):
    def __init__(self, root: str, split: str = "train", transform: object = None, download: bool = False) -> None:
        super().__init__(root, split == "train", download=download)


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, inner = types.ModuleType("torchvision"), types.ModuleType("torchvision.datasets")
    vars(inner).update(Faces=Faces, Digits=Digits)
    monkeypatch.setitem(sys.modules, "torchvision", fake)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", inner)


def test_images_of_a_hub_with_their_labels(hf: dict[str, Any]) -> None:
    made = Hub("hf:pictures").load()
    assert made.event_shape == (4, 4)
    assert [len(made.rows(name)) for name in ("train", "valid", "test")] == [36, 4, 20]
    assert unibound.support.describe(made.support) == "whole numbers from 0 to 255"
    assert made.labels["test"][:3] == ["dog", "owl", "cat"]
    np.testing.assert_array_equal(made.test[0].numpy(), np.asarray(PICTURES[40]))


def test_lists_and_numbers_of_a_hub(hf: dict[str, Any]) -> None:
    lists = Hub("hf:lists").load()
    assert lists.event_shape == (3,)
    assert [len(lists.rows(name)) for name in ("train", "valid", "test")] == [50, 5, 5]
    assert Hub("hf:numbers").load().event_shape == (2,)
    assert Hub("hf:numbers", column="b").load().event_shape == (1,)
    Hub("hf:lists", subset="small").load()
    assert hf["asked"] == ("lists", "small")


@pytest.mark.parametrize("name", ["Faces", "digits"])
def test_images_of_torchvision_with_their_labels(torchvision: None, name: str) -> None:
    made = Hub(f"torchvision:{name}").load()
    assert [len(made.rows(part)) for part in ("train", "valid", "test")] == [36, 4, 20]
    assert made.labels["test"][:2] == ["happy", "sad"]
    np.testing.assert_array_equal(made.test[1].numpy(), np.asarray(PICTURES[41]))


def test_from_python_and_at_the_command_line(hf: dict[str, Any], torchvision: None, cli: Callable) -> None:
    model = unibound.fit("hf:pictures", run_dir="run", **SMALL)
    assert set(model.result.classes) == {"cat", "dog", "owl"}
    assert 'name = "hf:pictures"' in Path("run/resolved.toml").read_text()
    typed = cli("run", "--config", "run/resolved.toml", "--run-dir", "again", "--json")
    assert json.loads(typed.out)["nll"] == model.result.nll
    assert "256 grey levels" in model.result.prepared
    shown = json.loads(cli("data", "torchvision:Faces", "--json").out)
    assert shown["classes"] == {"sad": 20, "happy": 16}
    chosen = unibound.fit("hf:lists", data__subset="small", likelihood="gaussian", **SMALL)
    assert chosen.run.settings.data.settings == Hub("hf:lists", subset="small")
    assert 'subset = "small"' in (chosen.run.path / "resolved.toml").read_text()
    assert cli("run", "--data", "hf:numbers", "--data.column", "b", "--dry-run").code == 0


def test_a_folder_is_found_from_elsewhere(hf: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    hf[str(Path.cwd() / "mine")] = hf["pictures"]
    model = unibound.fit("hf:./mine", run_dir="run", **SMALL)
    run, nll = model.run.path.absolute(), model.result.nll
    Path("other").mkdir()
    monkeypatch.chdir("other")
    assert unibound.load(run).evaluate().nll == nll


WRONG: dict[str, tuple[Hub, str]] = {
    "nothing to learn from": (Hub("hf:untrained"), "hf:untrained has parts test, but no train"),
    "words": (Hub("hf:words"), "hf:words has columns text, label, but none of images or numbers"),
    "a column of words": (Hub("hf:words", column="text"), "hf:words: text holds <U1, not numbers"),
    "no such column": (Hub("hf:words", column="image"), "hf:words has no column 'image' among text, label"),
    "lists of several lengths": (Hub("hf:ragged"), "hf:ragged: x holds data of different shapes"),
    "images of several sizes": (Hub("hf:sizes"), "hf:sizes: 1: images of 4x4 and 3x3 pixels; bring all to one size"),
    "torchvision without it": (Hub("torchvision:Gone"), "torchvision has no data set 'Gone'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_data_is_refused(what: str, hf: dict[str, Any], torchvision: None) -> None:
    hub, text = WRONG[what]
    with pytest.raises(UsageError) as caught:
        hub.load()
    assert text in str(caught.value)


def test_what_cannot_be_had_is_said_in_one_line(hf: dict[str, Any]) -> None:
    with pytest.raises(UniboundError, match="hf:gone cannot be had: no network"):
        unibound.fit("hf:gone", run_dir="run", **SMALL)
    assert not Path("run").exists()


@pytest.mark.parametrize(("source", "extra"), [("hf:me/mine", "hf"), ("torchvision:MNIST", "torchvision")])
def test_what_is_not_installed_names_its_extra(
    source: str, extra: str, monkeypatch: pytest.MonkeyPatch, cli: Callable
) -> None:
    for name in ("datasets", "torchvision", "torchvision.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    result = cli("run", "--data", source, "--run-dir", "run")
    assert result.code == 2
    assert f"{source} needs " in result.err
    assert f"pip install 'unibound[{extra}]'" in result.err
    assert result.err.count("\n") == 1
    assert not Path("run").exists()


def test_a_run_looks_again_without_the_data_that_are_gone(hf: dict[str, Any]) -> None:
    settings = SMALL | {"prior": "rbm", "prior__num_hidden": 3, "partition__num_chains": 4}
    model = unibound.fit("hf:pictures", run_dir="run", **settings)
    kept = hf.pop("pictures")
    gone = unibound.load("run")
    assert not gone.run.has_data
    assert gone.score(np.zeros((2, 4, 4))).shape == (2,)
    hf["pictures"] = kept
    back = unibound.load("run")
    assert back.run.has_data
    assert back.evaluate().nll == model.result.nll
    hf["pictures"] = {"train": part(0, 60, image=PICTURES[::-1])}
    with pytest.raises(UsageError, match="not those"):
        unibound.load("run").evaluate()
