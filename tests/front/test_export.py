"""Runs that travel: an export is opened by whatever opens a run, says how good it is, and is not trained on."""

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import unibound
from unibound import Run, Trained, UniboundError, UsageError
from unibound.cli import main
from unibound.runs.export import export


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """A finished run in the folder `run`, whose data are in a file."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    x = (torch.rand(60, 6) < 0.4).byte().numpy()
    np.savez("data.npz", train=x[:40], valid=x[40:50], test=x[50:])
    small = {"model": {"name": "mlp", "num_latents": 4, "hidden": (8,)}, "prior": {"name": "rbm", "num_hidden": 3}}
    return unibound.fit("data.npz", **small, epochs=2, num_particles=5, run_dir="run", progress=False)


@pytest.mark.parametrize("keep", ["newest", "best"])
def test_it_is_a_run_that_needs_nothing_else(model: Trained, keep: str) -> None:
    if keep == "best":
        settings = {"model__num_latents": 4, "model__hidden": (8,), "keep": "best", "validate_every": 1}
        model = unibound.fit("data.npz", **settings, epochs=4, num_particles=5, run_dir="best", progress=False)
    model.export("out")
    sample, state = model.sample(5, seed=1), {name: x.clone() for name, x in model.joint.state_dict().items()}
    Path("data.npz").rename("data.bin")
    shutil.move("out", "elsewhere")
    again = unibound.load("elsewhere")
    assert all(torch.equal(again.joint.state_dict()[name], x) for name, x in state.items())
    assert np.array_equal(again.sample(5, seed=1), sample)
    assert again.result.nll == model.result.nll
    assert not list(Path("elsewhere").rglob("state.pt"))
    assert len(list(Path("elsewhere/checkpoints").iterdir())) == 1
    Path("data.bin").rename("data.npz")
    assert Run.open("elsewhere").evaluate("test").nll == Run.open(model.run.path).evaluate("test").nll


def test_its_page_says_how_good_it_is(model: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    main(["export", "run", "out", "--certify"])
    assert capsys.readouterr().out == "out\n"
    page = Path("out/README.md").read_text()
    for text in (
        "library_name: unibound",
        f"{model.result.nll:.3f}",
        "vimco for 2 epochs",
        "## Certificate",
        "data set | data",
    ):
        assert text in page, page
    found = json.loads(Path("out/certificate.json").read_text())
    assert found["verdict"] in ("certified", "refused")
    assert ("Certified: " if found["verdict"] == "certified" else "Refused: ") in page
    assert str(Path.cwd()) not in page


def test_what_is_wrong_is_one_line(model: Trained, tmp_path: Path) -> None:
    model.export("out")
    for make, words in (
        (lambda: model.export("out"), "out is there already"),
        (lambda: export(Path("nowhere"), Path("new")), "nowhere is not the folder of a run"),
        (lambda: model.export("data.npz/new"), "cannot write to data.npz/new"),
        (lambda: next(Run.open("out").train(resume=True)), "out is an export, without what it takes to train on"),
        (lambda: unibound.load("hf:nobody"), "hf:nobody names no repository"),
    ):
        with pytest.raises(UsageError, match=words) as refused:
            make()
        assert "\n" not in str(refused.value)
    assert not list(tmp_path.glob(".*draft"))
    weights = next(Path("out").rglob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UsageError, match="is damaged"):
        unibound.load("out")
    lost = next(Path("run").rglob("state.pt"))
    lost.unlink()
    with pytest.raises(UsageError, match="damaged"):  # lost, and not left out
        Run.open("run")


class Hub:
    """A hub in a folder."""

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        Path("hub", name).mkdir(parents=True, exist_ok=True)

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> str:
        shutil.copytree(folder_path, Path("hub", repo_id), dirs_exist_ok=True)
        return f"https://hub/{repo_id}"


def test_it_goes_to_a_hub_and_comes_back(
    model: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(UsageError, match="needs huggingface_hub"):
            unibound.load("hf:me/model")
    fake: Any = ModuleType("huggingface_hub")
    fake.HfApi, fake.snapshot_download = Hub, lambda name: str(Path("hub", name))
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    main(["export", "run", "hf:me/model"])
    assert capsys.readouterr().out == "https://hub/me/model\n"
    assert np.array_equal(unibound.load("hf:me/model").sample(3, seed=2), model.sample(3, seed=2))

    def offline(name: str) -> str:
        raise OSError("no\nnetwork")

    fake.snapshot_download = offline
    with pytest.raises(UniboundError, match="hf:me/other: no network"):
        unibound.load("hf:me/other")
