"""What is looked at before and after a run: settings that are only printed, lists on narrow terminals, draws."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from running import Cli, Words, refused

from unibound import Run
from unibound.settings.recipes import recipes
from unibound.settings.records import Settings


@pytest.mark.parametrize("columns", [60, 80])
def test_a_list_fits_a_narrow_terminal(cli: Cli, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = cli("list").out.splitlines()
    assert max(map(len, lines)) <= columns
    about = {one["name"]: one["about"] for one in json.loads(cli("list", "--json").out)}
    text = " ".join(" ".join(lines).split())
    for name, words in about.items():
        assert f"{name} {words}" in text
    assert "from unibound" not in text
    assert len(lines) < 4 * len(about)


def test_a_dry_run_prints_what_would_be_run(cli: Cli, tiny: Words, tmp_path: Path) -> None:
    words = tiny(epochs=7)
    printed = cli(*words, "--dry-run").out
    assert tomllib.loads(printed)["epochs"] == 7
    assert not (tmp_path / "run").exists()
    assert cli(*words).code == 0
    assert (tmp_path / "run" / "resolved.toml").read_text() == printed
    Path("kept.toml").write_text(printed)
    assert cli("run", "--config", "kept.toml", "--dry-run").out == printed
    refused(cli("run", "--resume", "run", "--dry-run"), "--resume goes on with the settings")
    refused(cli("run", "--dry-run", "--epochs", 0), "--epochs")


def test_show_prints_a_recipe(cli: Cli) -> None:
    assert cli("show", "digits-pretrained").out == recipes()["digits-pretrained"].read_text()
    refused(cli("show", "digits-pretraind"), "did you mean 'digits-pretrained'?")


@pytest.mark.parametrize("there", [False, True])
def test_auto_is_a_device_that_is_there_and_is_written_down(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert Settings().device == Settings(device="auto").device == ("cuda" if there else "cpu")
    assert Settings(device="cpu").device == "cpu"


def test_draws_are_those_of_a_seed(cli: Cli, tiny: Words) -> None:
    assert cli(*tiny()).code == 0
    kept = Path("run/samples.png").read_bytes()
    assert cli("sample", "run").code == 0
    assert Path("run/samples.png").read_bytes() == kept, "by default they are those of the run's own picture"
    found = []
    for seed in (1, 1, 2):
        assert cli("sample", "run", "--count", 9, "--seed", seed, "--out", "x.npz").out == "x.npz\n"
        with np.load("x.npz") as file:
            found.append(dict(file))
    first, same, other = found
    assert {name: x.shape for name, x in first.items()} == {"x": (9, 6), "mean": (9, 6), "tau": (9, 4)}
    assert set(np.unique(first["x"])) <= {0.0, 1.0}
    assert all(np.array_equal(first[name], same[name]) for name in first)
    assert not np.array_equal(first["mean"], other["mean"])
    run = Run.open("run")
    with run.joint.evaluating():
        mean = run.joint.p.conditional(torch.from_numpy(first["tau"])).mean
    torch.testing.assert_close(mean.detach(), torch.from_numpy(first["mean"]))


def test_draws_of_what_has_no_mean_are_draws(cli: Cli, tiny: Words) -> None:
    words = tiny(without=("model", "estimator"), model="identity", estimator="cd", epochs=1)
    assert cli(*words).code == 0
    assert cli("sample", "run", "--count", 3, "--out", "x.NPZ").code == 0
    with np.load("x.NPZ") as file:
        assert file["x"].shape == (3, 6)
        assert np.array_equal(file["x"], file["tau"])


@pytest.mark.parametrize("out", ["x.jpg", "x", "x.npy", "png"])
def test_what_cannot_be_written_is_refused(cli: Cli, tiny: Words, out: str) -> None:
    refused(cli("sample", "run", "--out", out), f"--out {out} is neither .png", "nor .npz")


LOOPS = "import numba; numba.njit(lambda x: x + 1)(1)"


@pytest.mark.parametrize("code", [f"{LOOPS}; {LOOPS}", ""])
def test_what_is_compiled_is_said_once(code: str) -> None:
    pytest.importorskip("numba")
    start = "import unibound.kernels.compiled; from unibound.cli import app; app._say_what_takes_long()"
    done = subprocess.run([sys.executable, "-c", f"{start}\n{code}"], capture_output=True, text=True)
    assert done.stderr.count("unibound: compiling loops") == (1 if code else 0)


def test_a_single_particle_has_no_effective_sample_size(cli: Cli, tiny: Words) -> None:
    assert "effective sample size" in cli(*tiny(prior="bernoulli", without=("prior",))).out
    assert "effective sample size" not in cli(*tiny("one", prior="bernoulli", without=("prior",), num_particles=1)).out
