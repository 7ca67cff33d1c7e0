"""What a run's table leaves open is said: which rows were looked at, and which parts were never trained."""

import pydoc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import Cli

from unibound import Run
from unibound.data.splits import spread
from unibound.runs.result import Result

RNG = np.random.default_rng(0)
SORTED = np.vstack([RNG.random((200, 8)) < 0.02, RNG.random((200, 8)) < 0.5]).astype(np.uint8)
MIXED = RNG.permutation(SORTED)
BITS = (RNG.random((60, 6)) < 0.4).astype(np.uint8)


def test_train_nll_is_of_rows_spread_over_the_split(npz: Callable[..., Path], run: Callable) -> None:
    data = npz(MIXED, train=SORTED)  # easy rows first
    document, _ = run(data, prior="bernoulli", num_particles=50, epochs=2)
    opened = Run.open("run")
    whole = opened.evaluate("train")
    assert whole.bounds is not None
    first = -whole.bounds[:80].mean().item()
    assert document["train_data"] == [80, 400]
    assert document["train_nll"] == pytest.approx(whole.nll, abs=4 * whole.nll_stderr * 5**0.5)
    assert abs(first - whole.nll) > 4 * whole.nll_stderr * 5**0.5
    assert ("train NLL", f"{document['train_nll']:.3f} nats (80 of 400 data, evenly spread)") in opened_rows("run")


def opened_rows(folder: str) -> list[tuple[str, str]]:
    found = Result.read(Path(folder))
    assert found is not None
    return found.rows


FEW_ROWS = {
    "pictures": ("unibound.runs.pictures.save", 2),
    "what is watched": ("unibound.runs.watch._posterior", 1),
    "the far end": ("unibound.evaluation.reach._Look", 1),
    "diagnose": ("unibound.runs.diagnosis.diagnose", 2),
}


@pytest.mark.parametrize("look", FEW_ROWS)
def test_so_are_the_few_rows_of_every_look(
    look: str, npz: Callable[..., Path], run: Callable, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, place = FEW_ROWS[look]
    seen, inner = [], pydoc.locate(name)

    def watched(*given: Any, **more: Any) -> Any:
        seen.append(given[place][:][:, 0].mean().item())
        return inner(*given, **more)  # pyright: ignore

    monkeypatch.setattr(name, watched)
    marked = np.hstack([np.repeat([[0], [1]], 300, 0), RNG.random((600, 5)) < 0.5]).astype(np.uint8)
    run(npz(marked, train=marked, valid=marked, test=marked), prior="bernoulli", validate_every=1)
    assert cli("diagnose", "run", "--count", 40, "--num-particles", 4, "--probe-steps", 9).code == 0
    assert seen
    assert all(0.4 <= share <= 0.6 for share in seen)  # half are of either half of the rows


def test_all_rows_are_called_all(npz: Callable[..., Path], run: Callable) -> None:
    document, _ = run(npz(BITS, train=BITS[:10], test=BITS[10:]), prior="bernoulli")
    assert document["train_data"] == [10, 10]
    assert any(name == "train NLL" and "(all data)" in value for name, value in opened_rows("run"))


@pytest.mark.parametrize("count", [1, 3, 7, 10, 11])
def test_spread_reaches_over_all_rows_without_repeating_one(count: int) -> None:
    rows = spread(torch.arange(10).unsqueeze(1), count).flatten().tolist()
    assert len(set(rows)) == len(rows) == min(count, 10)
    assert max(rows, default=0) - min(rows, default=0) >= 10 - 10 // min(count, 10) - 1


UNTRAINED = {
    "cd with the default model": ({"estimator": "cd"}, ["q", "generator"]),
    "only the prior": ({"trains": "prior"}, ["q", "generator"]),
    "all but the prior": ({"trains": "q,generator"}, ["prior"]),
    "dae leaves the prior": ({"estimator": "dae"}, ["prior"]),
    "a prior that has no parameters is not missed": (
        {"estimator": "sgvb", "prior": "gaussian", "trains": "q,generator"},
        [],
    ),
    "cd with identity": ({"estimator": "cd", "model": "identity"}, []),
    "all": ({}, []),
}
FEW = {"partition__num_temperatures": 5, "partition__num_chains": 4}


@pytest.mark.parametrize("case", UNTRAINED)
def test_groups_that_no_stage_trains_are_named(case: str, npz: Callable[..., Path], run: Callable) -> None:
    words, groups = UNTRAINED[case]
    document, said = run(npz(BITS), **words, **FEW)
    assert document["untrained"] == groups
    line = f"{', '.join(groups)}: no stage trains it"
    assert (line in said) == bool(groups)
    assert any(name == "untrained" and line in value for name, value in opened_rows("run")) == bool(groups)


def test_a_group_that_an_earlier_stage_trained_is_not_named(npz: Callable[..., Path], cli: Cli) -> None:
    stage = "[[stage]]\nepochs = 1\n"
    stages = stage + 'estimator = "autoencoder"\n' + stage + 'estimator = "cd"\n'
    Path("two.toml").write_text(f'data = "{npz(BITS)}"\nnum_particles = 3\nmodel.num_latents = 6\n{stages}')
    result = cli("run", "--config", "two.toml", "--run-dir", "run", "--partition.num-temperatures", 5)
    assert result.code == 0, result.err
    assert "no stage trains it" not in result.err + result.out
    Path("one.toml").write_text(
        f'data = "{npz(BITS)}"\nnum_particles = 3\nmodel.num_latents = 6\n{stages}trains = ["prior"]\n'
    )
    result = cli("run", "--config", "one.toml", "--run-dir", "other", "--partition.num-temperatures", 5)
    assert result.code == 0, result.err
    assert "no stage trains it" not in result.err + result.out
