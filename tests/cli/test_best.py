"""The best look is kept beside the newest, a stage ends where it no longer betters itself, and which it is is said."""

import math
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from running import Cli

from unibound import Run
from unibound.errors import DamagedError
from unibound.runs import checkpoint
from unibound.runs.judgment import Judgment
from unibound.settings import sources

SETTINGS = """
batch_size = 20
validate_every = 1
num_particles = 5
{top}
[model]
num_latents = 4
hidden = [8]
[prior]
num_hidden = 3
num_chains = 5
[partition]
num_chains = 4
num_temperatures = 5
[[stage]]
epochs = 3
estimator = "nvil"
averaging = 0.9
{stage}
[[stage]]
epochs = 3
estimator = {{name = "vimco", num_particles = 2}}
averaging = 0.9
"""


class Shaky:
    """What is known of log Z."""

    def __init__(self, trustworthy: bool) -> None:
        self.trustworthy = trustworthy


def look(nll: float, trustworthy: bool = True) -> Any:
    @attrs.frozen
    class Look:
        nll: float
        log_z: Shaky

    return Look(nll, Shaky(trustworthy))


def test_a_look_that_cannot_be_trusted_is_never_the_best() -> None:
    judged = Judgment()
    for done, valid in enumerate((look(5.0), look(1.0, False), look(math.nan), look(-math.inf), look(4.0)), 1):
        judged = judged.after(done, valid)
        assert judged.best == (5 if done == 5 else 1)
    assert judged == Judgment(best=5, nll=4.0, lowest=4.0, misses=0)


def test_a_stage_is_judged_by_itself() -> None:
    judged = Judgment().after(1, look(2.0)).begun()
    for done, (nll, misses) in enumerate(((9.0, 0), (8.0, 0), (8.0, 1), (8.5, 2)), 2):
        judged = judged.after(done, look(nll))
        assert judged.misses == misses
    assert judged.best == 1


@pytest.fixture
def begun(npz: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Begin a run whose looks come out as planned: an NLL and whether it is to be trusted, by epochs done."""

    def begin(plan: list[tuple[float, bool]], top: str = "", stage: str = "") -> Path:
        bits = {name: torch.randint(2, (40, 6)).float().numpy() for name in ("train", "valid", "test")}
        path = Path("run.toml")
        path.write_text(f'data = "{npz(**bits)}"\n' + SETTINGS.format(top=top, stage=stage))
        after = Judgment.after

        def planned(self: Judgment, done: int, valid: Any) -> Judgment:
            return after(self, done, look(*plan[done - 1]))

        monkeypatch.setattr(Judgment, "after", planned)
        return path

    return begin


GOOD = [(9.0, True), (3.0, True), (1.0, False), (5.0, True), (4.0, True), (6.0, True)]


def trained(path: Path) -> Run:
    run = Run.create(Path("run"), sources.resolve([sources.read(path)]))
    for _ in run.train():
        pass
    return run


@pytest.mark.parametrize(("keep", "number"), [("best", 2), ("newest", 6)])
def test_which_is_evaluated_is_said(begun: Any, keep: str, number: int) -> None:
    run = trained(begun(GOOD, f'keep = "{keep}"'))
    names = [path.name for path in checkpoint.finished(run.checkpoints)]
    assert names == ["000002", "000005", "000006"]
    result = run.finish()
    assert result.weights.startswith(f"the {keep}")
    assert f"epoch {number}" in result.weights
    saved = checkpoint.load_weights(run.checkpoints / f"{number:06d}")
    for found in (run, Run.open("run")):
        state = found.joint.state_dict()
        assert all(torch.equal(state[name], value) for name, value in saved.items() if "auxiliary" not in name)


def test_where_no_look_is_to_be_trusted_the_newest_is_kept_and_said(begun: Any) -> None:
    run = trained(begun([(1.0, False)] * 6, 'keep = "best"'))
    assert "no look at the validation set was to be trusted" in run.load_kept()


def test_a_stage_ends_early_and_the_run_goes_on(begun: Any, cli: Cli) -> None:
    path = begun([(1.0, True), (2.0, True), (5.0, True), (4.0, True), (3.0, True)], stage="patience = 1")
    trained(path)
    lines = [(line.epoch.stage, line.epoch.epoch) for line in Run.open("run", weights=False).train(resume=True)]
    assert lines == [(1, 3)]
    assert cli("run", "--resume", "run").code == 0


@pytest.mark.parametrize("stopped", [1, 2, 3, 4])
def test_stopped_and_gone_on_with_a_stage_that_ends_early(begun: Any, stopped: int) -> None:
    path = begun([(1.0, True), (2.0, True), (5.0, True), (4.0, True), (3.0, True)], 'keep = "best"', "patience = 1")
    whole = trained(path).joint.state_dict()
    progress = Run.create(Path("stopped"), sources.resolve([sources.read(path)])).train()
    for _ in range(stopped):
        next(progress)
    progress.close()
    run = Run.open("stopped", weights=False)
    for _ in run.train(resume=True):
        pass
    state = run.joint.state_dict()
    assert state.keys() == whole.keys()
    assert all(torch.equal(state[name], whole[name]) for name in whole)


def test_the_best_is_damaged(begun: Any) -> None:
    run = trained(begun(GOOD, 'keep = "best"'))
    (run.checkpoints / "000002" / checkpoint.WEIGHTS).write_bytes(b"")
    with pytest.raises(DamagedError, match="000002"):
        Run.open("run")
