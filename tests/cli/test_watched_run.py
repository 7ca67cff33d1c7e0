"""A run that is watched: its metrics, its chains, its log, TensorBoard; and that watching changes nothing."""

import json
import re
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from running import SCRIPT, Cli, Words, refused
from unibound_plugins.models.mlp import MLP

from unibound import JointBound, Run
from unibound.loggers import Log
from unibound.loggers.tensorboard import TensorBoard
from unibound.runs import checkpoint, pictures, session
from unibound.runs.pictures import BORDER, SMALLEST
from unibound.runs.result import Result
from unibound.runs.watch import Watched
from unibound.settings import sources

EPOCH = {"done", "stage", "epoch", "bound", "ess", "seconds"}
LOOK = EPOCH | {"valid_nll", "log_z", "valid_ess", "valid_gap", "saturated", "active", "latent_nats", "datum_nats"}
CHAIN = {"reconstruction", "code_free_energy", "chain_free_energy", "chain_moved"}


def metrics(folder: str = "run") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def test_metrics_at_every_look(cli: Cli, tiny: Words) -> None:
    assert cli(*tiny(epochs=5)).code == 0
    looks = {line["done"]: line for line in metrics()}
    assert {done: line.keys() for done, line in looks.items()} == {
        done: LOOK | CHAIN if done in (1, 2, 4, 5) else EPOCH for done in range(1, 6)
    }
    assert all(isinstance(looks[5][name], float) for name in LOOK | CHAIN if name.startswith(("valid", "chain")))
    assert 0 <= looks[5]["active"] <= 4
    with Image.open("run/chain.png") as image:
        assert image.size == (10 * (SMALLEST + BORDER) + BORDER, 8 + 2 * BORDER)  # five chains, in one row


@pytest.mark.parametrize(
    ("flags", "without", "absent"),
    [
        ({"prior": "gaussian", "estimator": "sgvb"}, ("prior", "estimator"), CHAIN | {"saturated"}),
        ({"prior": "bernoulli"}, ("prior",), CHAIN),
        (
            {"model": "identity", "estimator": "cd"},
            ("model", "estimator"),
            {"saturated", "active", "latent_nats", "datum_nats"},
        ),
    ],
    ids=["gaussian", "bernoulli", "plain rbm"],
)
def test_metrics_are_left_out_where_there_are_none(
    cli: Cli, tiny: Words, flags: dict[str, str], without: tuple[str, ...], absent: set[str]
) -> None:
    assert cli(*tiny(without=without, **flags)).code == 0
    assert metrics()[-1].keys() == (LOOK | CHAIN) - absent
    assert Path("run/chain.png").exists() == ("reconstruction" not in absent)


def test_a_run_that_is_not_watched_ends_with_the_same_weights(
    cli: Cli, tiny: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = tiny("watched", epochs=5, validate_every=1)
    assert cli(*words).code == 0
    with monkeypatch.context() as patch:
        patch.setattr(session, "watch", lambda *_, **__: Watched())
        patch.setattr(pictures, "chain", lambda _: None)
        assert cli(*tiny("blind", epochs=5, validate_every=1)).code == 0
    assert metrics("blind")[-1].keys() == EPOCH | {"valid_nll", "log_z"}
    one, other = (
        checkpoint.load_weights(checkpoint.newest(Path(folder) / "checkpoints")) for folder in ("watched", "blind")
    )
    assert one.keys() == other.keys()
    assert "p.prior.chains" in one
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [line["valid_nll"] for line in metrics("watched")] == [line["valid_nll"] for line in metrics("blind")]


def test_a_look_evaluates_as_many_data_as_it_is_told(cli: Cli, tiny: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(session, "watch", lambda _, x, valid, **__: seen.append((len(x), valid)) or Watched())
    for few, count in ((3, 3), (10**6, 8)):  # all there are
        words = tiny(f"few-{few}", epochs=1, validate_data=few)
        assert cli(*words).code == 0
        of_all, valid = seen.pop()
        assert of_all == 8
        assert len(valid.bounds) == count


def test_a_log_has_a_line_for_every_look(cli: Cli, tiny: Words) -> None:
    lines = cli(*tiny(epochs=5, validate_every=4)).err.splitlines()
    assert lines[0] == "5 epochs into run"
    assert re.fullmatch(r"vimco, epoch 1 of 5: log p\(x\) >= -.* nats, valid NLL .* s left", lines[1])
    shown = [text.partition(":")[0] for text in lines[1:] if "epoch" in text]
    assert shown == [f"vimco, epoch {done} of 5" for done in (1, 4, 5)]
    assert "evaluating test: 8 data" in lines


def test_a_log_grows_while_the_run_goes_on(tiny: Words) -> None:
    """The run is so long that it is not over before its first line is read, however slowly."""
    command = [SCRIPT, *tiny(epochs=100_000, validate_every=100_000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "100000 epochs into run\n"
        assert process.stdout.readline().startswith("vimco, epoch 1 of 100000: ")
        assert not Path("run/evaluation.json").exists(), "the line came when all was over"
        process.kill()


def test_without_tensorboard(cli: Cli, tiny: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    refused(cli(*tiny(), "--tensorboard"), "logger tensorboard needs TensorBoard; pip install 'unibound[tensorboard]'")
    assert not Path("run").exists()


def mirrored(folder: str) -> Any:
    """What TensorBoard reads in a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(f"{folder}/tensorboard")
    events.Reload()
    return events


def scalars(folder: str) -> dict[str, list[tuple[int, float]]]:
    events = mirrored(folder)
    names = [name for name in events.Tags()["scalars"] if not name.startswith("result/")]
    return {name: [(one.step, one.value) for one in events.Scalars(name)] for name in names}


def expected(folder: str) -> dict[str, list[tuple[int, Any]]]:
    lines, log_z = metrics(folder), 0.0
    names = {name for line in lines for name in line} - {"done", "stage", "epoch"}
    for line in lines:
        log_z = line.get("log_z", log_z)
        line["bound"] -= log_z
    return {name: [(line["done"], pytest.approx(line[name])) for line in lines if name in line] for name in names}


def test_tensorboard_sees_the_metrics_as_a_terminal_does(cli: Cli, tiny: Words) -> None:
    pytest.importorskip("tensorboard")
    assert cli(*tiny(epochs=4), "--tensorboard").code == 0
    found = scalars("run")
    assert found == expected("run")
    run = Run.open("run")
    shown = [progress.bound for progress in run.train(resume=True)]  # where the run stands: at its end
    assert [found["bound"][-1][1]] == [pytest.approx(bound) for bound in shown]


def test_tensorboard_gets_what_came_out(cli: Cli, tiny: Words) -> None:
    pytest.importorskip("tensorboard")
    assert cli(*tiny(epochs=2), "--tensorboard").code == 0
    events, result = mirrored("run"), json.loads(Path("run/evaluation.json").read_text())
    assert events.Scalars("result/nll")[-1].value == pytest.approx(result["nll"])
    assert {"samples", "reconstructions", "nearest", "chain"} <= set(events.Tags()["images"])
    assert b"num_latents" in events.Tensors("settings/text_summary")[-1].tensor_proto.string_val[0]


@pytest.mark.parametrize("mirrored", [0, 2, 3])
def test_tensorboard_forgets_what_an_interruption_lost(cli: Cli, tiny: Words, mirrored: int) -> None:
    """The run stops after three epochs, of which TensorBoard saw none, some or one more than the checkpoint holds."""
    pytest.importorskip("tensorboard")
    assert cli(*tiny("whole", epochs=5)).code == 0
    run = Run.create(Path("run"), sources.resolve([sources.read(Path("whole/resolved.toml"))]))
    epochs = run.train()
    with Log(run, [TensorBoard()] if mirrored else []) as log:
        for count, progress in enumerate(islice(epochs, 3), 1):
            if count <= mirrored:
                log.after(progress)
    epochs.close()  # the run is interrupted
    time.sleep(1.1)  # TensorBoard orders files of one second by their names, not by their age
    if mirrored == 3:
        newest = checkpoint.newest(run.checkpoints)
        newest.rename(newest.with_name("lost"))
    assert cli("run", "--resume", "run", "--tensorboard").code == 0
    assert [line["done"] for line in metrics()] == [1, 2, 3, 4, 5]
    assert scalars("run") == expected("run")


@pytest.mark.parametrize("ignores", [True, False])
def test_a_run_says_what_latents_carry(cli: Cli, tiny: Words, monkeypatch: pytest.MonkeyPatch, ignores: bool) -> None:
    """Also of a p that does not look at them, which q has then nothing to tell."""
    build = MLP.assemble

    def planted(*parts: Any) -> JointBound:
        joint = build(*parts)
        layers = [each for each in (*joint.p.generator.modules(), *joint.q.modules()) if hasattr(each, "weight")]
        for layer in layers:
            layer.weight.data.mul_(0.0 if ignores else 9.0)
        return joint

    monkeypatch.setattr(MLP, "assemble", planted)
    words = tiny(without=("prior",), prior="bernoulli", optimizer__learning_rate=1e-9)
    found = json.loads(cli(*words, "--json").out)
    ends = metrics()[-1]
    said = "p does without its latents"
    assert found["latent_nats"] < 0.1 if ignores else found["latent_nats"] > 0.1
    assert abs(found["latent_nats"] - ends["latent_nats"]) < 1
    assert (said in dict(Result.read(Path("run")).rows)["latents"]) == ignores
    assert cli("report", "run").code == 0
    assert (said in Path("run/report.html").read_text()) == ignores
