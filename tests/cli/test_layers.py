"""Flags over environment over file, and a resolved.toml that says it all again."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import Cli, Words

from unibound import UsageError
from unibound.cli.flags import spell
from unibound.settings import sources
from unibound.settings.convert import Flag
from unibound.settings.records import Optimizer, Settings, Stage
from unibound.settings.sources import Layer


def flags(**values: Any) -> Layer:
    return Layer(values, spell)


def file(text: str) -> Layer:
    path = Path("settings.toml")
    path.write_text(text)
    return sources.read(path)


def test_flags_over_environment_over_file(monkeypatch: pytest.MonkeyPatch) -> None:
    low = file("epochs = 1\nbatch_size = 1\nseed = 1\n[estimator]\nnum_particles = 5")
    monkeypatch.setenv("UNIBOUND_BATCH_SIZE", "2")
    monkeypatch.setenv("UNIBOUND_SEED", "2")
    monkeypatch.setenv("UNIBOUND_ESTIMATOR__NUM_PARTICLES", "7")
    settings = sources.resolve([low, sources.from_environment(), flags(seed=Flag("3"))])
    assert (settings.stages[0].epochs, settings.batch_size, settings.seed) == (1, 2, 3)
    assert settings.stages[0].estimator.settings.num_particles == 7


def test_command_line_runs_what_the_layers_say(cli: Cli, tiny: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("run.toml").write_text("batch_size = 7\nseed = 4\n[optimizer]\nalgorithm = 'sgd'\nmomentum = 0.5\n")
    monkeypatch.setenv("UNIBOUND_SEED", "5")
    monkeypatch.setenv("UNIBOUND_OPTIMIZER__MOMENTUM", "0.25")
    monkeypatch.setenv("UNIBOUND_EPOCHS", "9")
    assert cli(*tiny(config="run.toml")).code == 0
    settings = sources.resolve([sources.read(Path("run/resolved.toml"))])
    assert (settings.batch_size, settings.seed, settings.stages[0].epochs) == (7, 5, 2)
    assert settings.stages[0].optimizer == Optimizer("sgd", momentum=0.25)


def test_every_type_can_be_typed() -> None:
    typed = {
        "model": {"hidden": Flag("30, 20"), "activation": Flag("relu"), "dropout": Flag("0.5")},
        "optimizers": {"q": {"learning_rate": Flag("1e-2")}},
        "trains": Flag("q,generator"),
        "dtype": Flag("float64"),
    }
    settings = sources.resolve([flags(**typed)])
    assert settings.model.settings.hidden == (30, 20)
    assert settings.model.settings.activation == "relu"
    assert settings.stages[0].optimizers["q"].learning_rate == 0.01
    assert settings.stages[0].trains == ("q", "generator")
    assert settings.dtype == "float64"


@pytest.mark.parametrize("section", ["[prior]\nname = 'rbm'\nnum_hidden = 64", "[prior]\nnum_hidden = 64"])
def test_naming_another_plugin_drops_the_section_of_the_file(section: str) -> None:
    settings = sources.resolve([file(section), flags(prior=Flag("bernoulli"))])
    assert settings.prior.name == "bernoulli"


def test_naming_the_same_plugin_keeps_the_section_of_the_file() -> None:
    settings = sources.resolve(
        [file("[prior]\nnum_hidden = 64"), flags(prior={"name": Flag("rbm"), "steps": Flag("2")})]
    )
    assert (settings.prior.settings.num_hidden, settings.prior.settings.steps) == (64, 2)


def test_stages_inherit_what_stands_at_the_top() -> None:
    text = """
        epochs = 7
        [estimator]
        name = "vimco"
        num_particles = 4
        [optimizer]
        learning_rate = 0.5
        [[stage]]
        epochs = 2
        trains = ["prior"]
        [[stage]]
        estimator = "sgvb"
        optimizer = {algorithm = "sgd"}
    """
    first, second = sources.resolve([file(text)]).stages
    assert (first.epochs, first.trains, first.estimator.settings.num_particles) == (2, ("prior",), 4)
    assert (second.epochs, second.estimator.name, second.estimator.settings.num_particles) == (7, "sgvb", 1)
    assert second.optimizer == Optimizer("sgd", learning_rate=0.5)


def test_flag_for_one_of_several_stages_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^--epochs: cannot be set for a run of several stages"):
        sources.resolve([file("[[stage]]\n[[stage]]"), flags(epochs=Flag("3"))])


def test_a_flag_is_meant_for_the_only_stage() -> None:
    text = "epochs = 9\n[[stage]]\nepochs = 2\nestimator = {name = 'vimco', num_particles = 7}"
    named = {"1": {"optimizer": {"learning_rate": Flag("0.5")}}}
    words = flags(epochs=Flag("3"), estimator={"num_particles": Flag("4")}, stage=named, seed=Flag("6"))
    settings = sources.resolve([file(text), words])
    (stage,) = settings.stages
    assert (stage.epochs, stage.estimator.name, stage.estimator.settings.num_particles) == (3, "vimco", 4)
    assert (stage.optimizer.learning_rate, settings.seed) == (0.5, 6)


def test_variables_that_are_no_settings_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIBOUND_DATA_HOME", "/nowhere")
    assert sources.from_environment().values == {}


def test_data_is_found_again_from_another_folder(npz: Any) -> None:
    path = npz()
    settings = sources.resolve([Layer({"data": path.name})])
    assert settings.data.name == str(path)


rates = st.floats(min_value=1e-12, max_value=1e12)
optimizers = st.builds(
    Optimizer,
    algorithm=st.sampled_from(["adam", "adamax", "sgd"]),
    learning_rate=rates,
    momentum=st.floats(0, 1),
    weight_decay=st.floats(0, 10),
    schedule=st.sampled_from(["constant", "cosine", "step"]),
    final=st.floats(0, 1),
)
stages = st.builds(
    Stage,
    epochs=st.integers(1, 10**6),
    trains=st.lists(st.sampled_from(["q", "generator", "prior"]), unique=True).map(tuple),
    optimizer=optimizers,
    optimizers=st.dictionaries(st.sampled_from(["q", "generator", "prior"]), optimizers),
)
settings = st.builds(
    Settings,
    binarization=st.sampled_from(["threshold", "static", "dynamic", "none"]),
    stages=st.lists(stages, min_size=1, max_size=3).map(tuple),
    batch_size=st.integers(1, 10**6),
    num_particles=st.integers(1, 10**9),
    seed=st.integers(0, 2**63 - 1),
    device=st.text("cpuda:0123", max_size=8),
    dtype=st.sampled_from(["float32", "float64"]),
    mixed_precision=st.booleans(),
)


@given(settings)
def test_what_is_written_is_read_again(settings: Settings) -> None:
    Path("resolved.toml").write_text(sources.write(settings))
    assert sources.resolve([sources.read(Path("resolved.toml"))]) == settings


def test_defaults_are_all_written() -> None:
    text = sources.write(Settings())
    assert sources.resolve([file(text)]) == Settings() == sources.resolve([])
    for name in ("num_hidden", "learning_rate", "num_chains", "dropout", "seed"):
        assert name in text
