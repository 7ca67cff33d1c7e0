"""Stages of a recipe, changed one by one."""

import tomllib

import pytest
from running import Cli, Words, refused

import unibound

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


def test_chains_of_a_stage(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIBOUND_STAGE__3__CHAINS__STEPS", "7")
    words = ["--stage.last.chains.num-chains", 200, "--stage.vimco.chains.steps=5"]
    assert [one["chains"] for one in stages(cli, *words)] == [
        *[{"num_chains": 0, "steps": 0}] * 2,
        {"num_chains": 0, "steps": 7},
        {"num_chains": 200, "steps": 5},
    ]


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
        ("--stage.4.chains.num-chains -1", ["stage 4: chains.num_chains", "must be >= 0"]),
        ("--stage.4.chains.steps many", ["stage 4: chains.steps: must be a whole number"]),
        ("--stage.4.chains.step 3", ["stage 4: chains.step: unknown setting; did you mean 'steps'?"]),
        ("--stage.4.chains 3", ["stage 4: chains", "must be"]),
        ("--epochs 3", ["--epochs: cannot be set for a run of several stages", "or as stage.last.epochs"]),
    ],
)
def test_what_is_no_stage_or_no_setting_of_one_is_refused(cli: Cli, words: str, parts: list[str]) -> None:
    refused(cli("run", "--config", "recipe.toml", "--dry-run", *words.split()), *parts)


def test_a_run_of_one_stage_says_which_flag_is_meant(cli: Cli) -> None:
    refused(cli("run", "--dry-run", "--stage.1.epochs", 3), "--stage.1.epochs: this run has a single stage", "--epochs")


def test_one_stage_has_chains_of_its_own_by_a_flag(cli: Cli, tiny: Words) -> None:
    assert cli(*tiny(), "--chains.num-chains", 7, "--chains.steps", 2).code == 0
    assert len(unibound.load("run").joint.p.prior.chains) == 7


def test_chains_that_a_prior_lacks_are_refused(cli: Cli, tiny: Words) -> None:
    words = tiny(without=("prior", "partition"), prior="made")
    refused(cli(*words, "--chains.num-chains", 7), "chains: made has none; leave them out of the stage")


def test_persistent_chains_of_a_stage_move_by_its_own_steps(cli: Cli, tiny: Words) -> None:
    words = tiny(without=("estimator",), estimator="cd", estimator__chain="persistent", estimator__steps=3)
    refused(cli(*words), "persistent chains move by the prior's own steps, 5")
    assert cli(*words, "--chains.steps", 3).code == 0
