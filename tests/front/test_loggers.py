"""Who else hears of a run: every logger the same, in whatever it keeps, and none of them can spoil the run."""

import csv
import functools
import json
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

import unibound
from unibound import UsageError
from unibound.errors import RunWarning
from unibound.loggers import Log
from unibound.loggers.table import CSV

X = (np.random.default_rng(0).random((80, 3, 2)) < [[0.2, 0.9]]).astype(np.uint8)
SMALL: dict[str, Any] = {
    "model": {"name": "mlp", "num_latents": 4, "hidden": [8]},
    "prior": {"name": "rbm", "num_hidden": 3, "num_chains": 5},
    "partition": {"name": "ais", "num_chains": 4, "num_temperatures": 5},
    "estimator": "rws",
    "epochs": 4,
    "validate_every": 2,
    "num_particles": 5,
    "progress": False,
}
fit = functools.partial(unibound.fit, X, **SMALL)


class Recorder:
    """Keeps what it hears; fails where it is told to."""

    def __init__(self, fails: str = "", at: int = 0) -> None:
        self.fails, self.at = fails, at
        self.calls: list[str] = []
        self.settings: dict[str, Any] = {}
        self.epochs: dict[int, dict[str, float]] = {}
        self.pictures: list[tuple[int, str]] = []
        self.result: dict[str, Any] = {}

    def hear(self, what: str, done: int = 0) -> None:
        self.calls.append(what)
        if what == self.fails and done == self.at:
            raise OSError("the disk\nis full")

    def begin(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.hear("begin")
        self.settings = dict(settings)

    def epoch(self, done: int, numbers: Mapping[str, float]) -> None:
        self.hear("epoch", done)
        self.epochs[done] = dict(numbers)

    def picture(self, done: int, name: str, path: Path) -> None:
        self.hear("picture", done)
        assert path.read_bytes().startswith(b"\x89PNG")
        self.pictures.append((done, name))

    def conclude(self, done: int, result: Mapping[str, Any]) -> None:
        self.hear("conclude")
        self.result = dict(result)

    def close(self) -> None:
        self.hear("close")


@attrs.define
class FakeRun:
    """A run of Weights & Biases, as far as one is used here; steps go up, as there."""

    options: dict[str, Any]
    logged: dict[int, dict[str, Any]] = attrs.field(factory=dict)
    summary: dict[str, Any] = attrs.field(factory=dict)
    finished: bool = False

    def log(self, data: dict[str, Any], step: int) -> None:
        assert step >= max(self.logged, default=0)
        assert not self.finished
        self.logged.setdefault(step, {}).update(data)

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """A module called wandb; the runs that it began."""
    runs: list[FakeRun] = []
    fake = types.ModuleType("wandb")

    def init(*, project: str, mode: str, dir: str, name: str, group: str, config: dict, settings: object) -> FakeRun:
        assert settings == {"console": "off", "silent": True}
        runs.append(FakeRun({"project": project, "mode": mode, "dir": dir, "name": name, "group": group} | config))
        return runs[-1]

    vars(fake).update(init=init, Settings=lambda **words: words, Image=lambda path: ("image", Path(path).name))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return runs


def table(path: str) -> dict[int, dict[str, float]]:
    with Path(path).open() as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return {int(row.pop("done")): row for row in rows}


def test_a_number_is_the_same_for_all(wandb: list[FakeRun], cli: Callable) -> None:
    recorder = Recorder()
    model = fit(run_dir="run", loggers=[recorder, "csv,wandb", CSV()])
    history = {line["done"]: line for line in model.history}
    assert recorder.epochs.keys() == history.keys() == {1, 2, 3, 4}
    for done, numbers in recorder.epochs.items():
        line = history[done]
        assert numbers == {name: line[name] for name in line.keys() - {"done", "stage", "epoch"}}
        assert numbers == table("run/metrics.csv")[done]
        assert numbers == {name: wandb[0].logged[done][name] for name in numbers}
    kept = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    log_z = [line.get("log_z") for line in kept]
    assert log_z[2] is None
    seen = [0.0 if z is None else z for z in (log_z[0], log_z[1], log_z[1], log_z[3])]
    shown = [line["bound"] - z for line, z in zip(kept, seen, strict=True)]
    assert [numbers["bound"] for numbers in recorder.epochs.values()] == shown
    assert all(abs(z) > 0.1 for z in seen)  # so that a bound on log p* would be another


def test_bounds_are_those_that_progress_has() -> None:
    heard: list[float | None] = []
    recorder = Recorder()
    fit(loggers=recorder, callbacks=[lambda progress: heard.append(progress.bound)])
    assert [numbers["bound"] for numbers in recorder.epochs.values()] == heard


def test_a_logger_hears_everything_and_in_order(wandb: list[FakeRun]) -> None:
    recorder = Recorder()
    model = fit(run_dir="run", loggers=[recorder, "wandb", "csv"])
    assert [recorder.calls[0], *recorder.calls[-2:]] == ["begin", "conclude", "close"]
    assert recorder.settings["model"]["num_latents"] == 4
    assert [done for done, name in recorder.pictures if name == "film"] == [1, 2, 4]
    assert {"samples", "reconstructions", "chain"} <= {name for done, name in recorder.pictures if done == 4}
    assert recorder.result == model.result.document
    (run,) = wandb
    assert run.options["mode"] == "offline"
    assert run.options["dir"] == run.options["name"] == "run"
    assert run.options["prior"]["num_hidden"] == 3
    assert run.summary["result/nll"] == model.result.nll
    assert run.logged[4]["samples"] == ("image", "samples.png")
    assert run.finished
    with Path("run/result.csv").open() as file:
        written = {row["name"]: row["value"] for row in csv.DictReader(file)}
    assert float(written["nll"]) == model.result.nll
    assert written["conclusion"] == model.result.conclusion


def test_wandb_goes_where_its_variables_say(wandb: list[FakeRun], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    fit(loggers="wandb", epochs=1)
    assert (wandb[0].options["mode"], wandb[0].options["project"]) == ("online", "mine")


WRONG: dict[str, tuple[Any, str]] = {
    "unknown": ("tensorbord", "unknown logger 'tensorbord'; did you mean 'tensorboard'"),
    "a class": (Recorder, "logger Recorder is a class; give one that was made: Recorder()"),
    "no logger": ([3], "a int is no logger: it has no begin()"),
    "no iterable": (3, "a int is no logger: it has no begin()"),
    "half a logger": (types.SimpleNamespace(begin=print, epoch=print), "has no picture(); see unibound.Logger"),
    "no such file": ("gone.py:Mine", "there is no file"),
    "needs arguments": ("collections.abc:Sized", "logger collections.abc:Sized cannot be made without arguments"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_logger_is_refused_before_anything_is_written(what: str) -> None:
    given, text = WRONG[what]
    with pytest.raises(UsageError) as caught:
        fit(run_dir="run", loggers=given)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("run").exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_what_is_not_installed_is_refused_before_anything_is_written(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tensorboard", "torch.utils.tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"logger {name} needs .*; pip install 'unibound\[{name}\]'"):
        fit(run_dir="run", loggers=["csv", name])
    assert not Path("run").exists()


@pytest.mark.parametrize("fails", ["epoch", "picture", "conclude", "close"])
def test_a_logger_that_dies_does_not_take_the_run_with_it(fails: str) -> None:
    at = 2 if fails in ("epoch", "picture") else 0
    dying, other = Recorder(fails, at), Recorder()
    with pytest.warns(
        RunWarning, match="logger Recorder failed, and is told no more: OSError: the disk is full"
    ) as said:
        model = fit(run_dir="run", loggers=[dying, other])
    assert [str(one.message).count("\n") for one in said if one.category is RunWarning] == [0]
    assert dying.calls[-1] == fails, "it was told more"
    assert len(other.epochs) == 4
    assert other.result == model.result.document
    assert model.result.nll == fit().result.nll


def test_one_that_cannot_begin_refuses_the_run_and_closes_the_others() -> None:
    dying, other = Recorder("begin"), Recorder()
    with pytest.raises(
        UsageError, match=r"logger Recorder cannot begin: OSError: the disk is full; .* nothing was trained"
    ):
        fit(run_dir="run", loggers=[other, dying])
    assert (dying.calls, other.calls) == (["begin"], ["begin", "close"])
    assert not Path("run/metrics.jsonl").exists()


def test_loggers_are_closed_when_a_run_is_interrupted() -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt):
        fit(loggers=recorder, callbacks=[interrupt])
    assert recorder.calls[-1] == "close"
    assert "conclude" not in recorder.calls


OWN = """
from pathlib import Path

class Mine:
    def begin(self, folder, settings): self.file = (folder / "mine.txt").open("w")
    def epoch(self, done, numbers): self.file.write(f"{done} {numbers['bound']}\\n")
    def picture(self, done, name, path): pass
    def conclude(self, done, result): self.file.write(f"nll {result['nll']}\\n")
    def close(self): self.file.close()
"""


def test_at_the_command_line_and_for_a_run_that_goes_on(cli: Callable, wandb: list[FakeRun]) -> None:
    Path("mine.py").write_text(OWN)
    model = fit(run_dir="python", loggers="csv")
    np.savez("data.npz", train=model.run.split("train"), valid=model.run.split("valid"), test=model.run.split("test"))
    words = ["run", "--config", "python/resolved.toml", "--data", "data.npz", "--run-dir", "typed", "--epochs", "2"]
    assert cli(*words, "--loggers", "csv,mine.py:Mine").code == 0
    assert list(table("typed/metrics.csv")) == [1, 2]
    assert cli("run", "--resume", "typed", "--epochs", "4", "--loggers", "csv, wandb,mine.py:Mine").code == 0
    assert list(table("typed/metrics.csv")) == [1, 2, 3, 4]
    assert list(wandb[0].logged) == [1, 2, 3, 4]
    lines = Path("typed/mine.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4", "nll"]


def test_a_table_has_columns_that_come_late(tmp_path: Path) -> None:
    made = CSV()
    made.begin(tmp_path, {})
    for done, numbers in enumerate([{"bound": -1.5}, {"bound": -1.25, "ess": 2.0}, {"ess": 3.0}], 1):
        made.epoch(done, numbers)
    assert (tmp_path / "metrics.csv").read_text() == "done,bound,ess\n1,-1.5,\n2,-1.25,2.0\n3,,3.0\n"
    made.begin(tmp_path, {})
    assert (tmp_path / "metrics.csv").read_text() == ""


def test_without_loggers_nothing_is_read() -> None:
    model = fit(epochs=1)
    with Log(model.run, []) as log:
        log.conclude(model.result)
