"""A run in mixed precision trains other weights, is evaluated in full precision, repeats, and goes on."""

import json
import tomllib
from pathlib import Path

import attrs
import pytest
import torch
from running import Cli, Words

from unibound import Run
from unibound.runs import checkpoint
from unibound.runs.build import build
from unibound.settings import sources


def weights(folder: str) -> dict[str, torch.Tensor]:
    return checkpoint.load_weights(checkpoint.newest(Path(folder) / "checkpoints"))


def same(one: str, other: str) -> bool:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def mixed(cli: Cli, tiny: Words) -> float:
    """Train in the folder `mixed`; returns the test NLL."""
    result = cli(*tiny("mixed"), "--mixed-precision", "true", "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)["nll"]


def test_it_changes_training_and_keeps_the_dtype(cli: Cli, tiny: Words, mixed: float) -> None:
    assert cli(*tiny("plain")).code == 0
    assert not same("mixed", "plain")
    assert {value.dtype for value in weights("mixed").values()} == {torch.float32}


def test_evaluation_is_in_full_precision(mixed: float) -> None:
    run = Run.open("mixed")
    assert run.settings.mixed_precision
    plain = build(attrs.evolve(run.settings, mixed_precision=False), run.split("train").mean(0))
    plain.load_state_dict(run.joint.state_dict())
    assert attrs.evolve(run, joint=plain).evaluate("test").nll == mixed


def test_it_repeats_and_resumes_to_the_same_bits(cli: Cli, mixed: float) -> None:
    settings = sources.resolve([sources.read(Path("mixed/resolved.toml"))])
    next(Run.create(Path("stopped"), settings).train())
    assert cli("run", "--resume", "stopped").code == 0
    assert same("mixed", "stopped")


@pytest.mark.parametrize("words", [["--mixed-precision", "true"], ["--mixed-precision=true"]])
def test_float64_has_nothing_to_mix(cli: Cli, tiny: Words, words: list[str]) -> None:
    result = cli(*tiny(dtype="float64"), *words)
    assert result.code == 2
    assert "mixed_precision is of float32 and bfloat16, but dtype is float64; leave one of them out" in result.err
    assert not Path("run").exists()
    assert cli(*tiny(dtype="float64"), "--mixed-precision=false").code == 0


def test_auto_is_decided_when_settings_are_made(cli: Cli, tiny: Words) -> None:
    result = cli(*tiny(), "--mixed-precision=auto", "--dry-run")
    assert result.code == 0, result.err
    assert tomllib.loads(result.out)["mixed_precision"] in (False, True)  # as the processor has it
    assert not tomllib.loads(cli(*tiny(dtype="float64"), "--mixed-precision=auto", "--dry-run").out)["mixed_precision"]
    assert cli(*tiny(), "--mixed-precision=off").code == 2
    Path("on.toml").write_text("mixed_precision = 'auto'")
    assert "unknown choice 'auto'" not in cli("run", "--config", "on.toml", "--mixed-precision=false", "--dry-run").err
