"""A run whose q and p make another model together says how good both are, each by its name, and draws from both."""

import json
from pathlib import Path

import numpy as np
import pytest
from running import called

import unibound
from unibound import Side
from unibound.evaluation.evaluate import evaluate
from unibound.evaluation.made import evaluate_made
from unibound.report import page


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of noisy copies of two patterns of 4 bits, by renyi, with an energy so small that its log Z is listed."""
    folder, random = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    rows = np.array([[1, 1, 0, 0], [0, 1, 1, 1]])
    np.savez(
        folder / "patterns.npz",
        **{
            name: (rows[random.integers(2, size=count)] ^ (random.random((count, 4)) < 0.1)).astype(np.uint8)
            for name, count in {"train": 100, "valid": 20, "test": 30}.items()
        },
    )
    return folder


def trained(folder: Path, *flags: object) -> list[object]:
    words = ["run", "--data", folder / "patterns.npz", "--prior", "bernoulli", "--estimator", "renyi", "--epochs", "2"]
    return [*words, "--num-particles", "20", "--json", *flags]


@pytest.mark.parametrize("model", ["mlp", "sbn"])
def test_both_models_are_told_apart_by_name(
    run: Path, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # of the terminal, so that no cell is broken
    path = run / model
    sizes = ["--model.num-latents", "3"] if model == "mlp" else ["--model.sizes", "3,2"]
    result = json.loads(called(capsys, *trained(run, "--model", model, *sizes, "--run-dir", path)).out)
    made = result["made"]["bihm"]
    listed = model == "mlp"  # a chain of layers does not say what it is over
    assert (made["nll_side"], made["log_z_side"]) == (("upper", "equal") if listed else ("none", "lower"))
    assert made["log_z"] < 0
    assert made["unscaled"] == pytest.approx(made["nll"] - made["log_z"])
    assert made["nll"] != result["nll"]
    shown = called(capsys, "evaluate", path).out
    assert "-log p of bihm" in shown
    assert "log Z, bihm" in shown
    assert "bihm: the NLL is at most" in shown
    found = json.loads(called(capsys, "evaluate", path, "--json").out)
    assert found["made"]["bihm"]["nll"] == pytest.approx(made["nll"], abs=1e-6)
    assert found["made"]["bihm"]["nll_side"] == made["nll_side"]
    called(capsys, "sample", path, "--out", run / "x.npz", "--count", "6")
    drawn = np.load(run / "x.npz")
    assert drawn["x"].shape == drawn["bihm_x"].shape == (6, 4)
    assert drawn["bihm_tau"].shape[1] == 2 * drawn["tau"].shape[1]
    assert "samples-bihm" in page.write(path).read_text()


def test_without_log_z_it_is_bounded_and_with_an_estimate_it_is_not(run: Path) -> None:
    """What a run prints as up to log Z errs high of both NLLs; with log Z from below nothing is claimed."""
    model = unibound.fit(
        run / "patterns.npz", model="sbn", prior="bernoulli", estimator="renyi", epochs=1, num_particles=20
    )
    (made,), x = model.made.values(), model.run.split("test")
    (found,) = evaluate_made({"it": made}, x, num_particles=200).values()
    assert found.side is Side.NONE
    assert found.log_z is not None
    exact = evaluate(model.joint, x, num_particles=500, posterior="none").nll
    assert found.nll - found.log_z.value > exact - 0.05
    assert found.nll < found.nll - found.log_z.value


def test_another_estimator_makes_none(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = trained(run, "--estimator.alpha", "0.3", "--run-dir", run / "other")
    assert json.loads(called(capsys, *words).out)["made"] == {}
