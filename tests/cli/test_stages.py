"""Stages of a recipe, changed one by one."""

import tomllib

import pytest
from running import Cli, refused

RECIPE = """
epochs = 4
batch_size = 20

[[stage]]
estimator = { name = "autoencoder", mask = 0.2 }

[[stage]]
estimator = "cd"
epochs = 2
trains = ["prior"]

[[stage]]
estimator = "cd"
trains = ["prior"]

[[stage]]
"""


@pytest.fixture(autouse=True)
def _recipe(tmp_path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)


def stages(cli: Cli, *words: object) -> list[dict]:
    result = cli("run", "--config", "recipe.toml", "--dry-run", *words)
    assert result.code == 0, result.err
    return tomllib.loads(result.out)["stage"]


def test_by_number_by_estimator_and_the_last(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--stage.1.epochs", 3, "--stage.2.estimator.steps=5", "--stage.last.estimator.num-particles", 50]
    words += ["--stage.vimco.optimizer.learning-rate", 0.5, "--stage.3.optimizers.prior.momentum", 0.9]
    first, second, third, last = stages(cli, *words, "--stage.autoencoder.epochs", 6)
    assert [one["epochs"] for one in (first, second, third, last)] == [6, 2, 4, 4]
    assert first["estimator"]["mask"] == 0.2
    assert (second["estimator"]["steps"], third["estimator"]["steps"]) == (5, stages(cli)[2]["estimator"]["steps"])
    assert last["estimator"]["name"] == "vimco"
    assert (last["estimator"]["num_particles"], last["optimizer"]["learning_rate"]) == (50, 0.5)
    assert third["optimizers"]["prior"]["momentum"] == 0.9
    monkeypatch.setenv("UNIBOUND_STAGE__2__EPOCHS", "9")
    assert [one["epochs"] for one in stages(cli, "--stage.1.epochs", 1)] == [1, 9, 4, 4]


def test_another_estimator_for_a_stage_drops_the_settings_of_the_first(cli: Cli) -> None:
    assert stages(cli, "--stage.1.estimator", "iwae")[0]["estimator"]["name"] == "iwae"
    assert "mask" not in stages(cli, "--stage.1.estimator", "iwae")[0]["estimator"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--stage.7.epochs 3", ["--stage.7", "1 autoencoder, 2 cd, 3 cd, 4 vimco"]),
        ("--stage.0.epochs 3", ["--stage.0", "is no single stage"]),
        ("--stage.cd.epochs 3", ["--stage.cd", "is no single stage; say which of"]),
        ("--stage.1.epochs few", ["stage 1: epochs: must be a whole number"]),
        ("--stage.1.epoch 3", ["stage 1: epoch: unknown setting; did you mean 'epochs'?"]),
        ("--stage.2.estimator.num-particles 3", ["stage 2: estimator.num_particles", "unknown setting"]),
        ("--stage.1 3", ["--stage.1", "names no setting"]),
        ("--stage.1.epochs", ["--stage.1.epochs"]),
        ("--stage 3", ["--stage"]),
        ("--epochs 3", ["--epochs: cannot be set for a run of several stages"]),
    ],
)
def test_what_is_no_stage_or_no_setting_of_one_is_refused(cli: Cli, words: str, parts: list[str]) -> None:
    refused(cli("run", "--config", "recipe.toml", "--dry-run", *words.split()), *parts)


def test_a_run_of_one_stage_says_which_flag_is_meant(cli: Cli) -> None:
    refused(cli("run", "--dry-run", "--stage.1.epochs", 3), "--stage.1.epochs: this run has a single stage", "--epochs")
