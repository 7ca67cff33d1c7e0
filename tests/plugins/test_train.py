"""Optimizers: one for all groups that are stepped alike, and no step is another for it."""

from typing import Any

import pytest
import torch

from unibound import JointBound
from unibound.runs.train import Training, make_optimizer
from unibound.settings.records import Choice, Optimizer, Stage
from unibound.testing import World
from unibound.testing.priors import Rates

OWN = {"generator": Optimizer(learning_rate=1e-2, schedule="constant")}


def training(**stage: Any) -> Training:
    world = World.of_bits(3, Rates((2,)))
    settings = Stage(estimator=Choice.of("estimator", "vimco"), epochs=4, **stage)
    return Training(JointBound(world.joint.q, world.joint.p), [settings], world.xs, batch_size=4)


def trained(run: Training) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    for _ in run.epochs():
        pass
    return run.joint.state_dict()


@pytest.mark.parametrize(
    ("optimizers", "keys"),
    [
        ({}, ["q, generator, prior"]),
        (OWN, ["q, prior", "generator"]),
        ({name: Optimizer(weight_decay=0.1 * n) for n, name in enumerate(("q", "prior"))}, ["q, generator", "prior"]),
    ],
)
def test_groups_that_are_stepped_alike_share_an_optimizer(optimizers: dict[str, Optimizer], keys: list[str]) -> None:
    assert list(training(optimizers=optimizers).optimizers) == keys


@pytest.mark.parametrize("algorithm", ["adam", "sgd", "adamax"])
def test_weights_are_those_of_an_optimizer_each(algorithm: Any) -> None:
    optimizer = Optimizer(algorithm=algorithm, weight_decay=0.1, momentum=0.5)
    together = trained(training(optimizer=optimizer))
    run = training(optimizer=optimizer)
    single = {name: list(part.parameters()) for name, part in run.joint.parts().items()}
    del run.optimizers["q, generator, prior"]
    settings = run._rates.pop("q, generator, prior")
    for name, parameters in single.items():
        run.optimizers[name] = make_optimizer(settings, parameters)
        run._rates[name] = settings
    for name, value in trained(run).items():
        torch.testing.assert_close(value, together[name], rtol=0, atol=0)


def test_rates_follow_the_schedule_of_each() -> None:
    run = training(optimizers=OWN)
    run._set_learning_rates(run.stages[0], done=2.0)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in run.optimizers.items()}
    assert rates["generator"] == 1e-2
    assert rates["q, prior"] == pytest.approx(3e-3 * (0.01 + 0.99 / 2))


def test_state_is_that_of_as_many_optimizers() -> None:
    run = training(optimizers=OWN)
    assert set(run.state_dict()["optimizers"]) == {"q, prior", "generator"}
    other = training()
    with pytest.raises(KeyError):
        other.load_state_dict(run.state_dict(), run.joint.state_dict())
