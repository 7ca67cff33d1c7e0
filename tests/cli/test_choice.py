"""A plugin handed in from Python needs no registration."""

import math
from pathlib import Path

import attrs
import pytest
import torch
from torch import Tensor, nn
from unibound_plugins.estimators.vimco import VIMCO
from unibound_plugins.priors.rbm import RBM

from unibound import Prior, Run, UsageError
from unibound.distributions import Bits
from unibound.settings.records import Choice, Settings, Stage
from unibound.support import boolean


@attrs.frozen
class Mine(VIMCO):
    """VIMCO by another name."""


class Coins(Prior):
    """Coins that know their bias, and begin fair unless told otherwise.

    Args:
        bias: log-odds at the start.
    """

    support = boolean

    def __init__(self, event_shape: tuple[int, ...], *, bias: float = 0.0) -> None:
        super().__init__(event_shape)
        self.logits = nn.Parameter(torch.full(event_shape, bias))

    def log_prob(self, tau: Tensor) -> Tensor:
        return Bits(self.logits, len(self.event_shape)).log_prob(tau)

    def sample(self, count: int) -> Tensor:
        return Bits(self.logits, len(self.event_shape)).sample((count,))


def test_a_run_of_plugins_that_nobody_registered(tmp_path: Path) -> None:
    stage = Stage(estimator=Choice.of("estimator", Mine(num_particles=3)), epochs=1)
    settings = Settings(prior=Choice.of("prior", Coins), stages=(stage,), num_particles=5)
    run = Run.create(tmp_path / "run", settings)
    assert isinstance(run.joint.p.prior, Coins)
    (progress,) = run.train()
    assert progress.done == 1
    assert math.isfinite(run.evaluate("valid").nll)
    with pytest.raises(UsageError, match=r"unknown prior '.*test_choice\.Coins'"):
        Run.open(tmp_path / "run")


def test_by_name_by_class_and_as_it_is() -> None:
    vimco = VIMCO(num_particles=3)
    assert Choice.of("estimator", vimco) == Choice("estimator", "vimco", VIMCO, vimco)
    assert Choice.of("estimator", "vimco") == Choice.of("estimator", VIMCO) == Choice.of("estimator", VIMCO())
    rbm = Choice.of("prior", "rbm")
    assert (rbm.cls, rbm.name, rbm.settings.num_hidden) == (RBM, "rbm", 64)
    assert Choice.of("prior", Coins).settings.bias == 0.0


@pytest.mark.parametrize(
    ("plugin", "words"), [(Coins, "Coins is no estimator"), (5, "int is no estimator"), ("vimc", "did you")]
)
def test_what_is_no_plugin_of_the_kind(plugin: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Choice.of("estimator", plugin)
