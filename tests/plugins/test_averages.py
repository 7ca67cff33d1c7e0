"""Averaged weights: what is averaged, what is not, and that looking at them leaves training as it was."""

from typing import Any

import pytest
import torch

from unibound import JointBound
from unibound.runs.averages import Averages
from unibound.runs.train import Training
from unibound.settings.records import Choice, Stage
from unibound.testing import World
from unibound.testing.priors import Rates


def stage(averaging: float, *trains: str) -> Stage:
    return Stage(estimator=Choice.of("estimator", "vimco"), epochs=3, trains=trains, averaging=averaging)


def training(*stages: Stage) -> Training:
    torch.manual_seed(0)
    world = World.of_bits(3, Rates((2,)))
    joint = JointBound(world.joint.q, world.joint.p)
    joint.register_buffer("count", torch.tensor(0))  # whole numbers have no average
    return Training(joint, stages, world.xs, batch_size=4)


def values(run: Training) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in run.joint.named_parameters()}


def stepped(run: Training, monkeypatch: Any) -> list[dict[str, torch.Tensor]]:
    """The raw weights after each step of a run to its end."""
    seen: list[dict[str, torch.Tensor]] = []
    step = Training.step

    def watched(self: Training, *words: Any) -> Any:
        estimate = step(self, *words)
        self.joint.get_buffer("count").add_(1)
        seen.append(values(self))
        return estimate

    monkeypatch.setattr(Training, "step", watched)
    torch.manual_seed(1)
    for _ in run.epochs():
        pass
    return seen


def by_hand(start: dict[str, torch.Tensor], seen: list[dict[str, torch.Tensor]], decay: float) -> dict:
    average = start
    for t, raw in enumerate(seen, 1):
        d = min(decay, t / (t + 9))
        average = {name: d * average[name] + (1 - d) * raw[name] for name in raw}
    return average


def test_a_stage_ends_with_the_averages_of_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    run = training(stage(0.3))
    start, seen = values(run), stepped(run, monkeypatch)
    torch.testing.assert_close(values(run), by_hand(start, seen, 0.3))
    assert any(not torch.equal(value, seen[-1][name]) for name, value in values(run).items())
    assert run.joint.get_buffer("count").item() == len(seen)


def test_the_next_stage_averages_from_where_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier stage averaged has no part in it, and a group that is frozen now keeps its averages."""
    run = training(stage(0.5), stage(0.5, "q"))
    start, seen = values(run), stepped(run, monkeypatch)
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    between = by_hand(start, first, 0.5)
    expected = {
        name: value if name.startswith("q.") else between[name] for name, value in by_hand(between, second, 0.5).items()
    }
    torch.testing.assert_close(values(run), expected)
    frozen = [name for name in values(run) if not name.startswith("q.")]
    assert frozen
    assert all(torch.equal(values(run)[name], second[0][name]) for name in frozen)


def test_averaging_changes_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        plain = stepped(training(stage(0.0)), patch)
    for one, other in zip(plain, stepped(training(stage(0.9)), monkeypatch), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_raw_weights_are_back_after_a_look_that_fails() -> None:
    module = torch.nn.Linear(2, 1)
    averages = Averages(module, 0.9)
    with torch.no_grad():
        module.weight.add_(1 / 3)
    averages.update(100)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    looked = averages.in_place()
    looked.__enter__()
    assert not torch.equal(module.weight, before["weight"])
    looked.__exit__(KeyError, KeyError(), None)
    torch.testing.assert_close(dict(module.state_dict()), before, rtol=0, atol=0)


def test_raw_weights_of_others_are_refused() -> None:
    averages = Averages(torch.nn.Linear(2, 1), 0.9)
    with pytest.raises(ValueError, match="not those of the parameters"):
        averages.restore({"weight": torch.zeros(1, 2)})
