"""The aggregated posterior against sums over all data."""

import math

import pytest
import torch
from torch import nn
from unibound_plugins.models.denoising import Corruption
from unibound_plugins.priors import convolved
from unibound_plugins.priors.convolved import Convolved

from unibound import Inference, UsageError
from unibound.distributions import Bits
from unibound.testing.listing import all_bits, scatter
from unibound.testing.verdict import FALSE_ALARM

X = all_bits((3,))[torch.tensor([1, 1, 4, 6, 7])]


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


class Learned(Inference):
    """q(tau | x) with parameters."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))

    def forward(self, x):
        return Bits(self.network(x))


def bound_to(q):
    prior = Convolved((3,))
    prior.bind(q, X)
    return prior


@pytest.mark.parametrize(("rows", "elements"), [(1 << 11, 1 << 21), (3, 7), (1, 1)])
@pytest.mark.parametrize("kind", ["masking", "salt_and_pepper", "gaussian"])
def test_is_the_mean_over_the_data_however_it_is_cut(kind, rows, elements, monkeypatch):
    monkeypatch.setattr(convolved, "MAX_ROWS", rows)
    monkeypatch.setattr(convolved, "MAX_ELEMENTS", elements)
    q = Corruption(kind, 0.35, 1)
    tau = (q(X) if kind == "gaussian" else q(all_bits((3,)))).sample((2,))  # [2, B, 3]
    close(bound_to(q).log_prob(tau), log_mean([q(x.unsqueeze(0)).log_prob(tau) for x in X]))


def log_mean(each):
    return torch.stack(each).logsumexp(0) - math.log(len(each))


@pytest.mark.parametrize("kind", ["masking", "salt_and_pepper"])
def test_sums_to_one_over_bits(kind):
    prior = bound_to(Corruption(kind, 0.35, 1))
    close(prior.log_prob(all_bits((3,))).logsumexp(0), torch.tensor(0.0).double())
    assert prior.log_z == 0.0


def test_integrates_to_one_over_reals():
    prior = Convolved((1,))
    prior.bind(Corruption("gaussian", 0.2, 1), X[:, :1])
    grid = torch.linspace(-4, 5, 9001, dtype=torch.float64).unsqueeze(1)
    close(prior.log_prob(grid).exp().sum() * 1e-3, torch.tensor(1.0).double())


def test_draws_follow_it():
    torch.manual_seed(0)
    prior = bound_to(Corruption("salt_and_pepper", 0.35, 1))
    tau = prior.sample(20_000)
    share = torch.bincount((tau.long() << torch.arange(3)).sum(1), minlength=8) / len(tau)
    expected = prior.log_prob(all_bits((3,))).exp()
    assert ((share - expected).abs() < FALSE_ALARM * (expected * (1 - expected) / len(tau)).sqrt()).all()


def test_its_gradient_goes_to_q():
    q = scatter(Learned(), seed=4)
    prior = bound_to(q)
    assert not list(prior.parameters())
    assert not prior.state_dict()
    tau = all_bits((3,))
    got = torch.autograd.grad(prior.log_prob(tau)[5], list(q.parameters()))
    exact = log_mean([q(x.unsqueeze(0)).log_prob(tau[5]) for x in X]).squeeze()
    for gradient, expected in zip(got, torch.autograd.grad(exact, list(q.parameters())), strict=True):
        close(gradient, expected)


def test_says_what_it_lacks_before_it_is_bound():
    for ask in (lambda prior: prior.sample(2), lambda prior: prior.log_prob(torch.zeros(2, 3))):
        with pytest.raises(UsageError, match="call bind"):
            ask(Convolved((3,)))


def test_refuses_a_model_whose_prior_is_over_a_part_of_the_latents():
    with pytest.raises(UsageError, match="of all its latents"):
        Convolved((2,)).bind(scatter(Learned(), seed=0), X)  # the top of three
