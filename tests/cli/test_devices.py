"""Runs of two ranks, by the real command: what they write, how they end, and how they go on."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from running import SCRIPT, Cli, Words, refused

from unibound import Run
from unibound.runs import checkpoint, launch

pytestmark = pytest.mark.skipif(find_spec("lightning_fabric") is None, reason="pip install unibound[fabric]")
TWO = pytest.mark.skipif(launch.there("cpu") < 2, reason="two ranks need two cores")


def begun(*words: object) -> "subprocess.Popen[str]":
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def weights(folder: str) -> dict[str, torch.Tensor]:
    return checkpoint.load_weights(checkpoint.newest(Path(folder) / "checkpoints"))


@TWO
@pytest.mark.slow
def test_a_killed_rank_ends_the_run_with_one_line_and_it_goes_on_to_the_same_bits(tiny: Words) -> None:
    words = {"epochs": 60, "validate_every": 100, "devices": 2}
    whole = begun(*tiny("whole", **words))
    out, err = whole.communicate()
    assert whole.returncode == 0, err

    run = begun(*tiny("cut", **words))
    while len(checkpoint.finished(Path("cut/checkpoints"))) < 2 and run.poll() is None:
        time.sleep(0.01)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    (other,) = [pid for pid in children if b"--devices" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(int(other), signal.SIGKILL)
    out, err = run.communicate()
    assert run.returncode == 1, err
    assert not out
    (line,) = [line for line in err.splitlines() if line.startswith("unibound:")]
    assert line == "unibound: a process of this run has ended, and the others end with it; go on with --resume"
    assert "Traceback" not in err
    assert int(checkpoint.newest(Path("cut/checkpoints")).name) < 60

    resumed = begun("run", "--resume", "cut", "--devices", 2)
    _, err = resumed.communicate()
    assert resumed.returncode == 0, err
    for name, value in weights("whole").items():
        assert torch.equal(value, weights("cut")[name]), name
    states = [checkpoint.load_state(checkpoint.newest(Path(name) / "checkpoints")) for name in ("whole", "cut")]
    for one, other in zip(*(state["training"]["others"] for state in states), strict=True):
        assert torch.equal(one["rng"], other["rng"])
        for name, value in one["buffers"].items():
            assert torch.equal(value, other["buffers"][name]), name


@TWO
@pytest.mark.slow
def test_a_checkpoint_of_two_ranks_goes_on_with_one(tiny: Words) -> None:
    run = begun(*tiny("r", epochs=1_000_000, devices=2))
    while not checkpoint.finished(Path("r/checkpoints")) and run.poll() is None:
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    run.communicate()
    said: list[str] = []
    epochs = Run.open("r", weights=False).train(resume=True, say=said.append)
    before, after = next(epochs), next(epochs)
    epochs.close()
    assert after.done == before.done + 1
    assert "ranks 2" in "".join(said)  # and it will not end with the same bits


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--devices", 4096), ("--devices 4096", "cores are here")),
        (("--devices", 0), ("--devices 0", "cannot be had")),
        (("--num-nodes", -1), ("--num-nodes -1", "cannot be had")),
    ],
)
def test_devices_that_are_not_there_are_refused(
    words: tuple[object, ...], parts: tuple[str, ...], cli: Cli, tiny: Words
) -> None:
    refused(cli(*tiny(), *words, "--device", "cpu"), *parts)


def test_without_fabric_it_says_what_to_install(cli: Cli, tiny: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    monkeypatch.setattr(launch, "there", lambda kind: 2)
    refused(cli(*tiny(), "--devices", 2, "--device", "cpu"), "pip install 'unibound[fabric]'")
