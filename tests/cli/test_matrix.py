"""The matrix of what goes with what, against what really happens."""

import json
from itertools import product
from operator import itemgetter

import attrs
import pytest
import torch

from unibound import Estimator, Run, UsageError, registries
from unibound.cli.matrix import Cell, cells, configure, settings_of, show, small_data, try_cell
from unibound.data import Splits
from unibound.registry import Registry, settings_class
from unibound.runs import trainable
from unibound.runs.train import Training
from unibound.settings.records import Choice, Given
from unibound.testing import variants

NAMES = list(product(registries()["model"], registries()["prior"], registries()["estimator"]))


def every_pair():
    """As few cells as it takes for every two names of different kinds to meet: those of a Latin square."""
    kinds = [registries()[kind] for kind in ("model", "prior", "estimator")]
    for numbered in product(*map(enumerate, kinds)):
        if sum(number for number, _ in numbered) % min(map(len, kinds)) == 0:
            yield tuple(name for _, name in numbered)


def train_two_steps(training: Training, x: torch.Tensor) -> dict[str, bool]:
    """Whether each group with parameters got a gradient; finite or not at all."""
    moved: dict[str, bool] = {}
    training.joint.train()
    for _ in range(2):
        estimate = training.step(training.stages[0].estimator.settings, x)
        assert estimate.surrogate.isfinite().all()
        for group, module in training.joint.parts().items():
            gradients = [parameter.grad for parameter in module.parameters()]
            if gradients:
                assert all(grad is None or grad.isfinite().all() for grad in gradients)
                moved[group] = moved.get(group, False) or any(grad is not None and grad.any() for grad in gradients)
    return moved


def test_every_two_names_meet():
    met = [set(map(itemgetter(*two), every_pair())) for two in ((0, 1), (0, 2), (1, 2))]
    assert met == [set(map(itemgetter(*two), NAMES)) for two in ((0, 1), (0, 2), (1, 2))]


@pytest.mark.parametrize(("model", "prior", "estimator"), list(every_pair()))
def test_cells_are_true(model, prior, estimator, monkeypatch):
    require_true(try_cell(estimator, prior, model), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("model", registries()["model"])
def test_every_cell_is_true(model, monkeypatch):
    for cell in cells([model]):
        require_true(cell, monkeypatch)


def require_true(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps train what a cell says; where it refuses, nothing could have been trained."""
    settings, x = settings_of(cell.estimator, cell.prior, cell.model), small_data()
    if cell.reason is None:
        moved = train_two_steps(configure(settings, x), x)
        assert moved
        assert {group for group, got in moved.items() if not got} == set(cell.untrained)
        return
    if "two that differ" in cell.reason:  # refused for what it would mean, and not because it could not be done
        return
    # It is not refused for nothing: forced, it trains nothing but what the estimator brought along.
    with monkeypatch.context() as forced:
        forced.setattr(trainable, "check", lambda *_: None)
        try:
            moved = train_two_steps(configure(settings, x), x)
        except (UsageError, RuntimeError):  # said by the part that cannot, or by torch
            moved = {}
    assert moved.keys() <= {"auxiliary"}


@pytest.mark.slow
@pytest.mark.parametrize(("model", "prior", "estimator"), list(every_pair()))
def test_a_run_refuses_what_the_matrix_refuses(model, prior, estimator, tmp_path):
    cell = try_cell(estimator, prior, model)
    path, x = tmp_path / "run", small_data()
    settings = attrs.evolve(settings_of(estimator, prior, model), data=Given.of("data_set"))
    if cell.reason is None:
        Run.create(path, settings, data=Splits(x, x, x))
        return
    with pytest.raises(UsageError) as refused:
        Run.create(path, settings, data=Splits(x, x, x))
    # A run looks at the support of the data before anything else.
    expected = "over " if "takes data for latents" in cell.reason else cell.reason
    assert expected in str(refused.value)
    assert not path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", registries()["estimator"])
def test_other_settings_are_refused_or_work_too(name):
    """Every choice that a setting of an estimator, a prior or a model has, one at a time."""
    x, tried = small_data(), 0
    for estimator in variants(registries()["estimator"][name]).values():
        for prior, model in product(registries()["prior"], registries()["model"]):
            for settings in _variations(settings_of(name, prior, model), estimator()):
                try:
                    training = configure(settings, x)
                except UsageError:
                    continue
                moved = train_two_steps(training, x)
                untrained = training.stages[0].estimator.settings.untrained
                assert {group for group, got in moved.items() if not got} <= untrained, settings
                tried += 1
    assert tried


def _variations(settings, estimator: Estimator):
    stage = attrs.evolve(settings.stages[0], estimator=Choice("estimator", "variant", type(estimator), estimator))
    settings = attrs.evolve(settings, stages=(stage,))
    yield settings
    for field in ("prior", "model"):
        chosen = getattr(settings, field)
        for words, make in variants(chosen.cls).items():
            if words:
                changed = attrs.evolve(chosen.settings, **make.keywords)
                assert isinstance(changed, settings_class(chosen.cls))
                yield attrs.evolve(settings, **{field: attrs.evolve(chosen, settings=changed)})


@pytest.mark.slow
def test_list_matrix_prints_every_cell(cli):
    matrix = json.loads(cli("list", "--matrix", "--json").out)
    assert len(matrix) == len(NAMES)
    assert set(matrix[0]) == {"estimator", "prior", "model", "reason", "untrained"}
    why = {cell["reason"] for cell in matrix if cell["reason"]}
    assert {reason for reason in why if "; " not in reason} == set()  # what would work is said after a semicolon
    text = " ".join(cli("list", "--matrix").out.split())
    for kind in ("estimator", "prior", "model"):
        for name in registries()[kind]:
            assert name in text
    for reason in why:
        assert reason in text


def test_cells_tried_together_are_those_tried_alone():
    for cell in cells(["sbn"]):
        assert cell == try_cell(cell.estimator, cell.prior, cell.model)


def test_the_table_of_a_model_shows_every_cell(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    matrix = list(cells(["mlp"]))
    show(matrix)
    text = capsys.readouterr().out
    assert all(name in text for kind in ("estimator", "prior") for name in registries()[kind])
    refusals = {cell.reason for cell in matrix if cell.reason is not None}
    assert all(reason in text and "; " in reason for reason in refusals)


def test_list_as_json(cli):
    document = json.loads(cli("list", "--json").out)
    assert ("estimator", "vimco", "unibound") in {(row["kind"], row["name"], row["from"]) for row in document}


def test_a_plugin_with_a_required_setting_is_named(monkeypatch):
    @attrs.frozen
    class Demanding(Estimator):
        """Needs a number.

        Args:
            number: which.
        """

        number: int

        def __call__(self, joint, x):
            raise NotImplementedError

    registry: Registry = registries()["estimator"]  # pyright: ignore[reportAssignmentType]
    monkeypatch.setitem(registry._classes, "demanding", Demanding)
    cell = try_cell("demanding", "gaussian", "mlp")
    assert cell.reason is not None
    assert "demanding has a setting without a default" in cell.reason


def test_a_stage_cannot_train_what_its_estimator_leaves(tmp_path):
    settings = settings_of("cd", "rbm", "mlp")
    stage = attrs.evolve(settings.stages[0], trains=("generator", "prior"))
    with pytest.raises(UsageError, match="cd does not train generator; leave generator out of trains"):
        Run.create(tmp_path / "run", attrs.evolve(settings, stages=(stage,)))
