"""Bad input ends with exit code 2 and one line that names the culprit and the cure."""

import errno
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from running import SCRIPT, TINY, Cli, Words, refused, start, wait_for, words_of
from safetensors.torch import save_file

from unibound.cli import console, main
from unibound.runs import checkpoint


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ({"estimator": "vimc"}, ["--estimator", "unknown estimator 'vimc'; did you mean 'vimco'?"]),
        ({"estimator": "qqqq"}, ["--estimator", "unknown estimator 'qqqq'; there are: ", "sgvb", "vimco"]),
        ({"prior": "rbn"}, ["--prior", "unknown prior 'rbn'; did you mean 'rbm'?"]),
        ({"partition": "ai"}, ["--partition", "unknown partition estimator 'ai'; did you mean 'ais'?"]),
        ({"data": "digit"}, ["--data", "unknown data set 'digit'; did you mean 'digits'?"]),
        ({"data": "none.npz"}, ["none.npz", "no such file"]),
        ({"epochs": "5.5"}, ["--epochs: must be a whole number, not '5.5'"]),
        ({"epochs": "0"}, ["--epochs: must be >= 1, not 0"]),
        ({"epochs": "-3"}, ["--epochs: must be >= 1, not -3"]),
        ({"batch_size": "-1"}, ["--batch-size: must be >= 1, not -1"]),
        ({"num_particles": "0"}, ["--num-particles: must be >= 1, not 0"]),
        ({"estimator__num_particles": "0"}, ["--estimator.num-particles: must be at least 2", "not 0"]),
        ({"estimator__num_particles": "1"}, ["--estimator.num-particles: must be at least 2", "not 1"]),
        ({"estimator__num_particle": "3"}, ["--estimator.num-particle", "Did you mean --estimator.num-particles?"]),
        ({"partition": "exact"}, ["--partition.num-chains: unknown setting; there are: chunk_bits, max_bits"]),
        ({"foo": "1"}, ["--foo"]),
        ({"optimizer__learning_rate": "nan"}, ["--optimizer.learning-rate: is out of range: nan"]),
        ({"optimizer__learning_rate": "0"}, ["--optimizer.learning-rate: must be > 0.0"]),
        ({"optimizer__algorithm": "adm"}, ["--optimizer.algorithm", "did you mean 'adam'?"]),
        ({"model__hidden": "8,x"}, ["--model.hidden: must be a whole number, not 'x'"]),
        ({"model__dropout": "1"}, ["--model.dropout: must be < 1.0"]),
        ({"seed": "-1"}, ["--seed: must be >= 0"]),
        ({"seed": "9" * 30}, ["--seed: is out of range"]),
        ({"dtype": "float16"}, ["--dtype", "did you mean 'float64'?"]),
        ({"device": "meta"}, ["device 'meta' cannot be used here", "use cpu"]),
        ({"device": "abacus"}, ["device 'abacus' cannot be used here", "use cpu"]),
        ({"binarization": "foo"}, ["--binarization", "dynamic, none, static, threshold"]),
        ({"trains": "w"}, ["unknown parameter group 'w'; there are: generator, prior, q"]),
        (
            {"posterior": "gaussian"},
            ["posterior gaussian is over reals, but prior rbm is over bits; leave the posterior out"],
        ),
        ({"estimator": "sgvb"}, ["sgvb needs reparameterized samples, but q(tau | x) is Bits; use vimco"]),
        ({"run_dir": "data.npz"}, ["cannot write a run to data.npz", "name another --run-dir"]),
        ({"run_dir": "/proc/run"}, ["cannot write a run to /proc/run", "name another --run-dir"]),
        ({"config": "none.toml"}, ["there is no file none.toml"]),
    ],
    ids=str,
)
def test_refuses_bad_flag(cli: Cli, tiny: Words, flags: dict[str, str], parts: list[str]) -> None:
    refused(cli(*tiny(**flags)), *parts)
    assert not Path("run").exists(), "a run that cannot be trained leaves nothing behind"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_refuses_cuda_where_there_is_none(cli: Cli, tiny: Words) -> None:
    refused(cli(*tiny(device="cuda")), "device 'cuda' cannot be used here", "use cpu")


def test_refuses_prior_without_parameters_to_train(cli: Cli, tiny: Words) -> None:
    words = tiny(without=("prior", "estimator"), prior="gaussian", estimator="sgvb", trains="prior")
    refused(cli(*words), "nothing to train: prior", "no parameters")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("run --epochs", ["--epochs requires an argument"]),
        ("run word", ["word"]),
        ("rnu", ["rnu", 'Did you mean "run"']),
        ("evaluate", ["--run requires an argument"]),
        ("evaluate nothing", ["nothing is not the folder of a run"]),
        ("sample", ["--run requires an argument"]),
        ("sample nothing", ["nothing is not the folder of a run"]),
        ("show", ["--name requires an argument"]),
        ("show vimc", ["unknown plugin 'vimc'; did you mean 'vimco'?"]),
        ("run --resume nothing", ["nothing is not the folder of a run"]),
        ("run --resume nothing --epochs 3", ["nothing is not the folder of a run"]),
        ("run --resume nothing --batch-size 3", ["--resume", "leave the other options out"]),
    ],
)
def test_refuses_bad_command(cli: Cli, words: str, parts: list[str]) -> None:
    refused(cli(*words.split()), *parts)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("not toml", ["is not readable as TOML", "line 1"]),
        ("epochs = 2\nepochs = 3", ["is not readable as TOML"]),
        ('estimator = "vimc"', ["estimator: unknown estimator 'vimc'; did you mean 'vimco'?"]),
        ("estimator = 5", ["estimator: must be a name or a table, not 5"]),
        ("epoch = 5", ["epoch: unknown setting; did you mean 'epochs'?"]),
        ("epochs = 5.5", ["epochs: must be a whole number, not 5.5"]),
        ('epochs = "5"', ["epochs: must be a whole number, not '5'"]),
        ("epochs = true", ["epochs: must be a whole number, not True"]),
        ("epochs = 0", ["epochs: must be >= 1, not 0"]),
        ("batch_size = -1", ["batch_size: must be >= 1, not -1"]),
        ('[optimizer]\nlearning_rate = "x"', ["optimizer.learning_rate: must be a number, not 'x'"]),
        ("[optimizer]\nlearning_rat = 1", ["optimizer.learning_rat: unknown setting; did you mean 'learning_rate'?"]),
        ("optimizer = 5", ["optimizer: must be a table of settings, not 5"]),
        ("[optimizers]\nq = 5", ["optimizers.q: must be a table of settings, not 5"]),
        ("[optimizers.q]\nlearning_rate = -1", ["optimizers.q.learning_rate: must be > 0.0, not -1.0"]),
        ("[estimator]\nnum_particles = 5.5", ["estimator.num_particles: must be a whole number, not 5.5"]),
        ("[estimator]\nfoo = 1", ["estimator.foo: unknown setting; there are: "]),
        ("[model]\nhidden = [8, 5.5]", ["model.hidden: must be a whole number, not 5.5"]),
        ("[model]\nhidden = 5", ["model.hidden: must be a list, not 5"]),
        ("[posterior]\nmin_scale = 1.0", ["posterior: settings, but no name; there are: bernoulli"]),
        ("stages = 5", ["stages: unknown setting; did you mean 'stage'?"]),
        ("stage = 5", ["stage: must be written as [[stage]] tables"]),
        ("[[stage]]\nepochs = 1\n[[stage]]\nepochs = 0", ["stage 2: epochs: must be >= 1, not 0"]),
        ("[[stage]]\nepoch = 1", ["stage 1: epoch: unknown setting; did you mean 'epochs'?"]),
        ('[[stage]]\nestimator = "vimc"', ["stage 1: estimator: unknown estimator 'vimc'"]),
        ('epochs = "x"\n[[stage]]\ntrains = ["q"]', ["epochs: must be a whole number, not 'x'"]),
    ],
)
def test_refuses_bad_file_by_name(cli: Cli, text: str, parts: list[str]) -> None:
    Path("bad.toml").write_text(text)
    refused(cli("run", "--config", "bad.toml", "--run-dir", "run"), "bad.toml", *parts)


def test_refuses_file_that_is_no_text(cli: Cli) -> None:
    Path("bad.toml").write_bytes(b"\xff\xfe\x00")
    refused(cli("run", "--config", "bad.toml"), "bad.toml is not readable as TOML")
    refused(cli("run", "--config", "."), "is not readable as TOML")


@pytest.mark.parametrize(
    ("variable", "value", "parts"),
    [
        ("UNIBOUND_PRIOR", "rbn", ["unknown prior 'rbn'; did you mean 'rbm'?"]),
        ("UNIBOUND_SEED", "x", ["must be a whole number, not 'x'"]),
        ("UNIBOUND_OPTIMIZER__MOMENTUM", "2", ["must be <= 1.0, not 2.0"]),
        ("UNIBOUND_OPTIMIZER__MOMENTOM", "2", ["unknown setting; did you mean 'momentum'?"]),
        ("UNIBOUND_SEEDS", "2", ["unknown setting; did you mean 'seed'?"]),
    ],
)
def test_refuses_bad_variable_by_name(
    cli: Cli, tiny: Words, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, parts: list[str]
) -> None:
    monkeypatch.setenv(variable, value)
    refused(cli(*tiny()), variable, *parts)


GREY = np.linspace(0, 1, 180, dtype=np.float32).reshape(30, 6)


@pytest.mark.parametrize(
    ("arrays", "parts"),
    [
        ({"train": np.where(GREY > 0.5, np.nan, GREY)}, ["train holds NaN"]),
        ({"train": GREY * 2}, ["holds reals, which are no grey levels and no bits", "levels"]),
        ({"test": GREY - 1}, ["holds reals, which are no grey levels"]),
        ({"test": np.full((5, 6), 2)}, ["holds counts, which are no grey levels"]),
        ({"train": np.ones((30, 6))}, ["all training data are the same"]),
        ({"test": np.zeros((5, 7))}, ["test has data of shape [7], train of [6]"]),
        ({"train": np.zeros(6)}, ["train has shape [6]"]),
        ({"test": np.zeros((0, 6))}, ["test is empty"]),
        ({"train": np.zeros((0, 6))}, ["train is empty"]),
        ({"train": None}, ["no array 'train'"]),
        ({"train": np.full((4, 6), "a")}, ["train holds <U1, not numbers"]),
        ({"train": np.array([[1, None]], dtype=object)}, ["holds pickled objects"]),
    ],
)
def test_refuses_bad_data(
    cli: Cli, tiny: Words, npz: Callable[..., Path], arrays: dict[str, np.ndarray], parts: list[str]
) -> None:
    refused(cli(*tiny(data=npz("bad.npz", **arrays))), "bad.npz", *parts)


def test_refuses_grey_data_for_bits(cli: Cli, tiny: Words, npz: Callable[..., Path]) -> None:
    words = tiny(data=npz("grey.npz", train=GREY), binarization="none")
    refused(cli(*words), "likelihood bernoulli, for train, is over bits, but the data hold", "binarize")


def test_refuses_file_that_is_no_data(cli: Cli, tiny: Words, npz: Callable[..., Path]) -> None:
    whole = npz().read_bytes()
    Path("cut.npz").write_bytes(whole[: len(whole) // 2])
    refused(cli(*tiny(data="cut.npz")), "cut.npz", "damaged, or no .npz file")
    refused(cli(*tiny(data="./")), "is a folder")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with its data beside it; copy it before hurting it."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    bits = {name: rng.integers(0, 2, (20, 6), dtype=np.uint8) for name in ("train", "valid", "test")}
    np.savez(folder / "data.npz", **bits)
    flags = {"data": folder / "data.npz", "run-dir": folder / "run"} | TINY
    main(["run", *words_of(flags)])
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("evaluate {} --split foo", ["split must be train, valid or test, not 'foo'"]),
        ("evaluate {} --partition ai", ["unknown partition estimator 'ai'; did you mean 'ais'?"]),
        ("evaluate {} --num-particles 0", ["--num-particles must be at least 1, not 0"]),
        ("evaluate {} --num-particles x", ["--num-particles", '"x"']),
        ("sample {} --count 0", ["--count must be at least 1, not 0"]),
        ("sample {} --out no/such/picture.png", ["--out no/such/picture.png", "existing folder"]),
        ("run --run-dir {}", ["holds a run already; go on with --resume"]),
    ],
)
def test_refuses_bad_option_on_a_run(cli: Cli, run: Path, words: str, parts: list[str]) -> None:
    refused(cli(*words.format(run).split()), *parts)


def truncate(name: str, size: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def noise(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(np.random.default_rng(0).bytes(3000))


@pytest.mark.parametrize("command", ["evaluate", "sample"])
@pytest.mark.parametrize(
    "hurt",
    [
        truncate("weights.safetensors", 0),
        truncate("weights.safetensors", 500),
        noise("weights.safetensors"),
        lambda folder: (folder / "weights.safetensors").unlink(),
        lambda folder: save_file({"a": torch.zeros(1)}, folder / "weights.safetensors"),
    ],
    ids=["empty", "truncated", "noise", "missing", "foreign"],
)
def test_refuses_hurt_weights(cli: Cli, run: Path, command: str, hurt: Callable[[Path], object]) -> None:
    hurt(checkpoint.newest(run / "checkpoints"))
    refused(cli(command, run), "000002", "remove its folder to fall back on the one before")


def test_falls_back_on_the_checkpoint_before(cli: Cli, run: Path) -> None:
    shutil.rmtree(checkpoint.newest(run / "checkpoints"))
    before = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").unlink()
    result = cli("run", "--resume", run, "--json")
    assert result.code == 0
    assert json.loads(result.out)["nll"] == before["nll"]


def test_refuses_checkpoint_of_another_model(cli: Cli, run: Path, tiny: Words) -> None:
    assert cli(*tiny("other", model__num_latents=5)).code == 0
    shutil.rmtree(run / "checkpoints/000002")
    shutil.copytree("other/checkpoints/000002", run / "checkpoints/000002")
    for words in (["evaluate", run], ["run", "--resume", run]):
        refused(cli(*words), "000002 is not a checkpoint of this run", "model.num_latents was 5 and is 4")


def test_refuses_old_checkpoint_of_another_model(cli: Cli, run: Path, tiny: Words) -> None:
    """One of version 0.1, which does not say what it is of."""
    assert cli(*tiny("other", model__num_latents=5)).code == 0
    for folder in (run, *checkpoint.finished(run / "checkpoints")):
        (folder / "SHA256SUMS").unlink()
    for part in ("weights.safetensors", "state.pt"):
        shutil.copy(f"other/checkpoints/000002/{part}", run / "checkpoints/000002" / part)
        (run / "checkpoints/000002/about.json").unlink(missing_ok=True)
    (run / "checkpoints/000001/about.json").unlink()
    refused(cli("evaluate", run), "is not a checkpoint of this run", "size mismatch")
    (run / "evaluation.json").unlink()
    refused(cli("run", "--resume", run), "was begun by version 0.1", "`unibound evaluate", "trains it anew")


def test_refuses_to_resume_on_other_data(cli: Cli, tiny: Words, npz: Callable[..., Path]) -> None:
    assert cli(*tiny()).code == 0
    Path("run/evaluation.json").unlink()
    npz("data.npz", train=np.eye(30, 6))
    refused(cli("run", "--resume", "run"), "the data are not those that run was trained on")


@pytest.mark.parametrize(
    ("flags", "without"),
    [
        ({"validate_every": 100}, ()),
        ({"batch_size": 7}, ()),
        ({"estimator": "sgvb", "prior": "gaussian"}, ("estimator", "prior")),
        ({"estimator": "nvil", "prior": "gaussian"}, ("estimator", "prior")),
    ],
    ids=str,
)
def test_divergence_names_step_and_group_and_keeps_the_last_checkpoint(
    cli: Cli, tiny: Words, flags: dict[str, object], without: tuple[str, ...]
) -> None:
    result = cli(*tiny(without=without, optimizer__learning_rate="1e30", epochs=6, **flags))
    assert result.code == 3
    line = result.err.splitlines()[-1]
    assert line.startswith("unibound: ")
    assert "Traceback" not in result.err
    assert "lower its learning rate" in line
    assert "stage 1, epoch " in line
    # Which of several that ran away is the largest, rounding decides.
    assert any(f" {group}" in line for group in ("q", "generator", "prior", "auxiliary"))
    for folder in checkpoint.finished(Path("run/checkpoints")):
        assert all(value.isfinite().all() for value in checkpoint.load_weights(folder).values())


def test_interrupt_names_the_command_to_go_on_with(tiny: Words) -> None:
    process = start(tiny("my run", epochs=100_000))
    wait_for(Path("my run/checkpoints/000002"), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "unibound: interrupted; go on with `unibound run --resume 'my run'`"
    assert "Traceback" not in err


def test_a_reader_that_goes_away_ends_a_run(tiny: Words) -> None:
    process = start(tiny("run", epochs=100_000))
    assert process.stderr is not None
    assert process.stderr.readline() == "100000 epochs into run\n"
    process.stderr.close()
    assert process.wait() == 141
    assert not Path("run/evaluation.json").exists()


@pytest.mark.parametrize("words", [["list"], ["list", "--json"], ["--help"]])
def test_a_reader_that_was_never_there(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([SCRIPT, *words], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_full_disk_is_one_line(tiny: Words) -> None:
    process = start(tiny(model__hidden=400), max_file=8192)
    _, err = process.communicate()
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("unibound: cannot save run/checkpoints/000001")
    assert err.splitlines()[-1].endswith("go on with --resume run")
    assert "Traceback" not in err


def test_unexpected_os_error_is_one_line(cli: Cli, tiny: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "some/file")

    monkeypatch.setattr(console, "train", fail)
    refused(cli(*tiny()), "some/file: Input/output error", code=1)
