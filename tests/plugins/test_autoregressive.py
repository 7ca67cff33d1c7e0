"""Priors `nade` and `made`: draws in one pass, orderings, ensembles, exact likelihoods, and what is refused."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import called, refused
from torch import Tensor
from unibound_plugins.likelihoods.bernoulli import Bernoulli
from unibound_plugins.models.identity import Identity
from unibound_plugins.priors.made import MADE
from unibound_plugins.priors.nade import NADE

from unibound import Prior, UsageError
from unibound.draws import draw
from unibound.evaluation.evaluate import evaluate
from unibound.sequences.autoregressive import Autoregressive, Predicted
from unibound.sequences.predictor import Masked, Tied
from unibound.testing import examine_prior
from unibound.testing.laws.draws import NUM_DRAWS, follow_log_prob
from unibound.testing.listing import all_bits, scatter

NETS: dict[str, Callable[[int], Any]] = {
    "tied": lambda size: Tied(size, 4),
    "masked": lambda size: Masked(size, (5,)),
    "deep": lambda size: Masked(size, (7, 2), direct=True),
    "visible": lambda size: Masked(size, (), direct=True),
}
FURTHER = {
    "nade, orders": functools.partial(NADE, num_orders=3),
    "made, deep": functools.partial(MADE, hidden=(4, 5), direct=True, num_orders=2),
    "made, narrow": functools.partial(MADE, hidden=(1,)),
    "fvsbn": functools.partial(MADE, hidden=(), direct=True),
}


@pytest.mark.parametrize("make", FURTHER.values(), ids=FURTHER)
def test_further_settings_sit_the_exam(make: Callable[..., Prior]) -> None:
    assert [verdict.detail for verdict in examine_prior(make) if not verdict.held] == []


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
@pytest.mark.parametrize("size", [1, 4])
@torch.no_grad()
def test_a_context_shifts_draws_and_scores_alike(make: Callable[[int], Any], size: int) -> None:
    net = scatter(make(size), 2)
    hidden = torch.randn(3, net.num_hidden).double() if net.num_hidden else None
    made = Predicted(net, torch.randperm(size), (size,), hidden, torch.randn(3, size).double())
    tau, log_p = draw(made, NUM_DRAWS)
    torch.testing.assert_close(log_p, made.log_prob(tau))
    states = all_bits((size,)).unsqueeze(1).expand(-1, 3, -1)
    torch.testing.assert_close(made.log_prob(states).logsumexp(0), torch.zeros(3).double())
    before = torch.nn.utils.parameters_to_vector(net.parameters())

    def log_prob(parameters: Tensor) -> Tensor:
        torch.nn.utils.vector_to_parameters(parameters, net.parameters())
        return made.log_prob(tau)

    assert follow_log_prob(log_prob, before, "of each of 3 contexts")


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_no_logit_sees_its_own_bit_or_a_later_one(make: Callable[[int], Any]) -> None:
    net, order = scatter(make(5), 3), torch.tensor([3, 0, 4, 2, 1])
    slopes = torch.autograd.functional.jacobian(lambda bits: net(bits, order, None, None), torch.rand(5).double())
    place = order.argsort()
    sees = slopes != 0
    assert not sees[place.unsqueeze(1) <= place].any()
    if not isinstance(net, Masked) or net.direct is not None:
        assert sees[place.unsqueeze(1) > place].all()


class OffByOne(Masked):
    """Logits see units of degrees up to their own place."""

    def masks(self, order: Tensor) -> list[Tensor]:
        *hidden, _ = super().masks(order)
        return [*hidden, (order.argsort() + 1).unsqueeze(1) >= self.layer_degrees()[-1]]


class Peeping(MADE):
    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape, hidden=(6,))
        self.predictor = OffByOne(len(self.current), (6,))


class MeanOfLogs(NADE):
    def log_prob(self, tau: Tensor) -> Tensor:
        return torch.stack([self.distribution_in(order).log_prob(tau) for order in self.orders]).mean(0)


class ForgottenOrder(NADE):
    def __init__(self, event_shape: tuple[int, ...]) -> None:
        order = torch.randperm(torch.Size(event_shape).numel()).tolist()
        super().__init__(event_shape, order=tuple(order))
        for name in ("orders", "current"):
            self.register_buffer(name, getattr(self, name), persistent=False)


@pytest.mark.parametrize(
    ("mutant", "law"),
    [
        (Peeping, "normalized"),
        (functools.partial(MeanOfLogs, num_orders=4), "normalized"),
        (ForgottenOrder, "saved_and_loaded"),
    ],
    ids=["degrees off by one", "mean of logs", "order not saved"],
)
def test_wrong_ones_die(mutant: Callable[..., Prior], law: str) -> None:
    torch.manual_seed(3)
    assert law in {verdict.law for verdict in examine_prior(mutant) if not verdict.held}


def test_an_ensemble_is_the_mean_of_probabilities() -> None:
    prior = scatter(NADE((4,), num_hidden=3, num_orders=3), 1)
    states, logs = all_bits((4,)), []
    for order in prior.orders:
        prior.current.copy_(order)
        logs.append(prior.train().log_prob(states))
    mean = torch.stack(logs).exp().mean(0).log()
    torch.testing.assert_close(prior.eval().log_prob(states), mean)
    assert (mean >= torch.stack(logs).mean(0) - 1e-12).all()


@pytest.mark.parametrize("agnostic", [False, True])
def test_each_step_trains_one_ordering(agnostic: bool) -> None:
    torch.manual_seed(0)
    prior = NADE((4,), num_orders=2, agnostic=agnostic)
    seen = set()
    for _ in range(60):
        prior.advance()
        seen.add(tuple(prior.current.tolist()))
    kept = {tuple(order) for order in prior.orders.tolist()}
    assert len(seen) > 12 if agnostic else seen == kept


@pytest.mark.parametrize("prior", [NADE((2, 2), num_hidden=3), MADE((2, 2), hidden=(3,), num_orders=2)])
def test_with_identity_the_likelihood_is_exact(prior: Autoregressive) -> None:
    scatter(prior, 1)
    joint = Identity().build(prior, Bernoulli(), Bernoulli(), torch.zeros(2, 2)).double()
    x = all_bits((2, 2))[3:9]
    found = evaluate(joint, x, num_particles=2)
    assert found.side == "equal"
    assert found.nll == pytest.approx(-prior.eval().log_prob(x).mean().item(), abs=1e-9)


def test_large_batches_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, x = scatter(NADE((2, 2)), 1), all_bits((2, 2)).view(2, 8, 2, 2)
    whole = prior.log_prob(x)
    monkeypatch.setattr("unibound.sequences.autoregressive.AT_ONCE", 3 * prior.predictor.size)
    with torch.no_grad():
        torch.testing.assert_close(prior.log_prob(x), whole)


@pytest.mark.parametrize(
    ("flags", "culprit"),
    [
        (["--prior", "nade", "--prior.order", "0,1,1,3"], "order must name each bit from 0 to 3 once"),
        (["--prior", "made", "--prior.order", "0,1,2"], "order must name each bit from 0 to 3 once"),
        (["--prior", "nade", "--prior.num-orders", "0"], "num_orders must be from 1 to 1000, not 0"),
        (["--prior", "made", "--prior.num-orders", "2147483648"], "num_orders must be from 1 to 1000"),
        (["--prior", "nade", "--prior.dropout", "1"], "dropout in [0, 1)"),
        (["--prior", "made", "--prior.hidden", "0"], "needs hidden units"),
    ],
)
def test_bad_settings_are_refused_in_one_line(
    flags: list[str], culprit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = (np.random.default_rng(0).random((30, 4)) < 0.4).astype(np.float32)
    np.savez(tmp_path / "data.npz", train=x[:20], valid=x[20:25], test=x[25:])
    words = ["--data", tmp_path / "data.npz", "--model", "identity", *flags, "--run-dir", tmp_path / "run"]
    refused(called(capsys, "run", *words), culprit)
    assert not (tmp_path / "run").exists()


def test_reparameterized_draws_are_refused() -> None:
    with pytest.raises(UsageError, match="no reparameterized draws"):
        draw(NADE((3,)).distribution_in(torch.arange(3)), 2, reparameterized=True)
