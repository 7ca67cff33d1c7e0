"""A run that was killed and went on ends where one that was never stopped ends, to the last bit."""

import json
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from running import Cli, Words

from unibound import Run, disk
from unibound.runs import checkpoint
from unibound.settings import sources

STAGES = """
binarization = "dynamic"
batch_size = 8
validate_every = 3
num_particles = 5
[model]
num_latents = 4
hidden = [8]
[prior]
num_hidden = 3
num_chains = 5
[partition]
num_chains = 4
num_temperatures = 5
[[stage]]
epochs = {first}
estimator = "nvil"
trains = ["q", "generator"]
[[stage]]
epochs = {second}
estimator = {{name = "vimco", num_particles = 2}}
averaging = 0.9
chains = {{num_chains = 8, steps = 2}}
optimizer = {{algorithm = "adam", learning_rate = 0.01}}
optimizers = {{prior = {{algorithm = "sgd", momentum = 0.9, learning_rate = 0.01}}}}
"""


@pytest.fixture
def config(npz: Any) -> Any:
    """Write the settings of a run of two stages on grey data, with an estimator that has parameters of its own."""
    grey = {
        name: torch.rand(40, 6, generator=torch.Generator().manual_seed(1)).numpy()
        for name in ("train", "valid", "test")
    }

    def write(first: int, second: int) -> Path:
        path = Path("run.toml")
        path.write_text(f'data = "{npz(**grey)}"\n' + STAGES.format(first=first, second=second))
        return path

    return write


def weights(folder: str) -> dict[str, torch.Tensor]:
    return checkpoint.load_weights(checkpoint.newest(Path(folder) / "checkpoints"))


def numbers(folder: str) -> dict[str, Any]:
    document = json.loads((Path(folder) / "evaluation.json").read_text())
    return {name: value for name, value in document.items() if name not in ("seconds", "run_dir")}


def epochs(folder: str) -> list[dict[str, Any]]:
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


def pictures(folder: str) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*.png")}


def assert_same_run(one: str, other: str) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert numbers(one) == numbers(other)
    assert epochs(one) == epochs(other)
    assert pictures(one) == pictures(other)
    assert not list(Path(other).rglob("*.draft"))
    assert [line["done"] for line in epochs(one)] == list(range(1, len(epochs(one)) + 1))


@pytest.fixture
def whole(cli: Cli, config: Any) -> Path:
    """A run that was never stopped, of three epochs and two more in a second stage; returns its settings."""
    path = config(3, 2)
    assert cli("run", "--config", path, "--run-dir", "whole").code == 0
    return path


@pytest.mark.parametrize("stopped", range(6))
def test_stopped_after_any_epoch(cli: Cli, whole: Path, stopped: int) -> None:
    progress = Run.create(Path("stopped"), sources.resolve([sources.read(whole)])).train()
    for _ in range(stopped):
        next(progress)
    progress.close()
    torch.rand(100)  # whatever else drew from the generators in between
    assert cli("run", "--resume", "stopped").code == 0
    assert_same_run("whole", "stopped")


KILLED = """
import os, signal, sys
from unibound.cli import main
from unibound.runs.train import Training

step, left = Training.step, [None] * int(sys.argv[1])

def killed(*words):
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left.pop()
    return step(*words)

Training.step = killed
main(sys.argv[2:])
"""


@pytest.mark.parametrize("steps", [7, 17])
def test_killed_in_the_middle_of_an_epoch(cli: Cli, whole: Path, steps: int) -> None:
    """Of five steps each; the fourth epoch is the first of the second stage."""
    words = ["run", "--config", str(whole), "--run-dir", "killed"]
    killed = subprocess.run([sys.executable, "-c", KILLED, str(steps), *words], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert checkpoint.newest(Path("killed/checkpoints")).name == f"{steps // 5:06d}"
    assert cli("run", "--resume", "killed").code == 0
    assert_same_run("whole", "killed")


@pytest.mark.parametrize("moment", ["write", "flush"])
def test_stopped_while_saving(cli: Cli, whole: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    progress = Run.create(Path("stopped"), sources.resolve([sources.read(whole)])).train()
    next(progress)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(disk, moment, interrupt)
        with pytest.raises(KeyboardInterrupt):
            next(progress)
    with Path("stopped/metrics.jsonl").open("a") as file:
        file.write('{"done": 3, "sta')  # a line that was never finished
    for folder in ("stopped", "stopped/checkpoints", "stopped/film"):
        Path(folder, ".half.0123456789abcdef.draft").write_text("what was never renamed")
    assert cli("run", "--resume", "stopped").code == 0
    assert_same_run("whole", "stopped")


def test_finished_run_is_only_printed_again(cli: Cli, tiny: Words) -> None:
    first = cli(*tiny(), "--json")
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    again = cli("run", "--resume", "run", "--json")
    assert again.code == 0
    assert json.loads(again.out) == json.loads(first.out)
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")} == before
    table = cli("run", "--resume", "run")
    assert f"{json.loads(first.out)['nll']:.3f}" in table.out


def test_repeated_from_its_resolved_settings(cli: Cli, whole: Path) -> None:
    for name, source in {"again": "whole", "third": "again"}.items():
        assert cli("run", "--config", f"{source}/resolved.toml", "--run-dir", name).code == 0
        assert_same_run("whole", name)
        assert Path(name, "resolved.toml").read_text() == Path("whole/resolved.toml").read_text()
    assert whole.exists()


def test_another_seed_is_another_run(cli: Cli, tiny: Words) -> None:
    assert cli(*tiny("one", seed=1)).code == cli(*tiny("two", seed=2)).code == 0
    assert numbers("one")["nll"] != numbers("two")["nll"]


def test_old_checkpoints_are_removed(cli: Cli, tiny: Words) -> None:
    assert cli(*tiny(epochs=5)).code == 0
    assert sorted(path.name for path in Path("run/checkpoints").iterdir()) == ["000004", "000005"]


def test_seconds_add_up_over_sessions(config: Any) -> None:
    first = Run.create(Path("run"), sources.resolve([sources.read(config(3, 2))])).train()
    before = [next(first) for _ in range(2)]
    first.close()
    standing, *after = Run.open(Path("run"), weights=False).train(resume=True)
    assert standing == before[-1]
    seconds = [progress.seconds for progress in (*before, *after)]
    assert len(seconds) == 5
    assert all(earlier < later for earlier, later in pairwise([0.0, *seconds]))
