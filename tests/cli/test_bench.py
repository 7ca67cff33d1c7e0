"""`unibound bench` measures what is the same, and refuses to race what is not. How fast anything is, no test asks."""

import json

import pytest
import torch
from running import Cli, refused

from unibound import kernels
from unibound.runs import ratios


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ("25 Gibbs steps, 784 x 500", "training step, 10 particles")
    monkeypatch.setattr(ratios, "RACES", {name: ratios.RACES[name] for name in kept})


@pytest.mark.usefixtures("quick")
@pytest.mark.slow
def test_ratios_of_every_race_are_printed(cli: Cli) -> None:
    result = cli("bench", "--seconds", 0.01, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)["ratios"]
    assert list(found) == list(ratios.RACES)
    assert list(found["training step, 10 particles"]) == ["all", "resampled"]
    for row in (row for rows in found.values() for row in rows.values()):
        assert 0 < row["low"] <= row["ratio"] <= row["high"]


def test_what_is_not_the_same_is_not_raced(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    right = kernels.rbm_gibbs
    monkeypatch.setattr(kernels, "rbm_gibbs", lambda v, w, b, c, steps: right(v, w, b + 0.5, c, steps))
    monkeypatch.setattr(ratios, "RACES", {"gibbs": ratios.gibbs})
    refused_line = cli("bench", "--seconds", 0.01)
    assert refused_line.code == 1
    assert "not the same" in refused_line.err


def test_every_race_compares_what_it_races() -> None:
    torch.manual_seed(0)
    assert list(ratios.annealing()) == ["hand", "unibound"]
    logits = torch.randn(3, 4, 5, requires_grad=True)
    bits = (torch.rand(4, 5) < 0.5).float()
    plain = -ratios.cross_entropy(logits, bits.expand_as(logits), reduction="none").sum(-1)
    torch.testing.assert_close(kernels.bernoulli_log_prob(logits, bits), plain)


@pytest.mark.usefixtures("quick")
def test_no_time_is_refused(cli: Cli) -> None:
    refused(cli("bench", "--seconds", 0), "--seconds must be above 0")
