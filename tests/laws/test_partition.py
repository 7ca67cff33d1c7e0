"""Partition functions: annealing proved by enumerating all paths of a tiny RBM."""

from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from unibound import EnergyPrior, Side
from unibound.testing.listing import all_bits
from unibound.testing.strategies import rbm_parameters
from unibound.testing.verdict import FALSE_ALARM

rbm = pytest.importorskip("unibound_plugins.priors.rbm")
exact = pytest.importorskip("unibound_plugins.partition.exact")
ais = pytest.importorskip("unibound_plugins.partition.ais")
BETAS = (0.0, 0.3, 0.7, 1.0)


def machine(weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, base_bias: Tensor | None = None) -> EnergyPrior:
    """An RBM with these parameters, in float64."""
    prior = rbm.RBM((len(visible_bias),), num_hidden=len(hidden_bias), num_chains=3).double()
    for name, value in {"weight": weight, "visible_bias": visible_bias, "hidden_bias": hidden_bias}.items():
        prior.get_parameter(name).data = value
    if base_bias is not None:
        prior.get_buffer("base_bias").copy_(base_bias)
    return prior


def transition(prior: EnergyPrior, beta: float) -> Tensor:
    """T_beta from every visible state to every other [S, S], from the two conditionals."""
    weight, base = prior.get_parameter("weight"), prior.get_buffer("base_bias")
    visible, hidden = all_bits((weight.shape[0],)), all_bits((weight.shape[1],))
    up = (beta * (visible @ weight + prior.get_parameter("hidden_bias"))).sigmoid()  # [S, H]
    bias = (1 - beta) * base + beta * prior.get_parameter("visible_bias")
    down = (bias + beta * hidden @ weight.T).sigmoid()  # [G, V]
    to_hidden = (up.unsqueeze(1) * hidden + (1 - up).unsqueeze(1) * (1 - hidden)).prod(-1)  # [S, G]
    to_visible = (down.unsqueeze(1) * visible + (1 - down).unsqueeze(1) * (1 - visible)).prod(-1)  # [G, S]
    return (to_hidden @ to_visible).detach()


def paths(prior: EnergyPrior) -> tuple[Tensor, Tensor, float]:
    """Probability and log-weight of every annealing path over BETAS, and the exact log Z / Z_0."""
    states = all_bits(tuple(prior.event_shape))
    log_f = {beta: -prior.free_energy(states, beta).detach() for beta in BETAS}
    kernels = {beta: transition(prior, beta) for beta in BETAS[1:-1]}  # the move at the end weighs nothing
    probability, log_w = [], []
    for path in product(range(len(states)), repeat=len(BETAS) - 1):
        chance = log_f[0.0].softmax(0)[path[0]]
        for (old, new), beta in zip(pairwise(path), BETAS[1:-1], strict=True):
            chance = chance * kernels[beta][old, new]
        probability.append(chance)
        log_w.append(sum(log_f[b][at] - log_f[a][at] for at, (a, b) in zip(path, pairwise(BETAS), strict=True)))
    ratio = log_f[1.0].logsumexp(0).item() - prior.base_log_z()
    return torch.stack(probability), torch.stack(log_w), ratio


def tiny() -> EnergyPrior:
    random = torch.Generator().manual_seed(4)
    weight, visible, hidden, base = (
        torch.randn(shape, generator=random, dtype=torch.float64) for shape in ((2, 3), (2,), (3,), (2,))
    )
    return machine(1.5 * weight, visible, hidden, base)


def test_mean_weight_over_all_paths_is_the_ratio_of_z() -> None:
    probability, log_w, ratio = paths(tiny())
    assert probability.sum().item() == pytest.approx(1.0, abs=1e-12)
    assert (probability * log_w.exp()).sum().log().item() == pytest.approx(ratio, abs=1e-12)
    assert (probability * log_w).sum().item() < ratio - 1e-3


def test_log_z_hat_errs_low_and_less_with_more_chains() -> None:
    probability, log_w, ratio = paths(tiny())
    single = (probability * log_w).sum()
    pair = torch.logaddexp(log_w.unsqueeze(0), log_w.unsqueeze(1)) - torch.log(torch.tensor(2.0)).double()
    double = (probability.unsqueeze(0) * probability.unsqueeze(1) * pair).sum()
    assert single < double < ratio


def test_annealing_draws_those_paths() -> None:
    prior = tiny()
    probability, log_w, _ = paths(prior)
    torch.manual_seed(0)
    betas = torch.tensor(BETAS, dtype=torch.float64)
    _, drawn = prior.anneal(prior.base_sample(40_000), betas)
    for power in (1, 2):
        mean = (probability * log_w**power).sum()
        error = (drawn**power).std() / len(drawn) ** 0.5
        assert abs(((drawn**power).mean() - mean) / error) < FALSE_ALARM


def test_the_default_sweep_weighs_as_the_rbms_own() -> None:
    prior = tiny()
    betas = torch.tensor(BETAS, dtype=torch.float64)
    start = prior.base_sample(30_000)
    found = []
    for sweep in (prior.anneal, lambda tau, betas: EnergyPrior.anneal(prior, tau, betas)):
        for schedule in (betas, betas.flip(0)):
            torch.manual_seed(1)
            found.append(sweep(start, schedule)[1])
    for own, default in ((found[0], found[2]), (found[1], found[3])):
        error = ((own.var() + default.var()) / len(own)).sqrt()
        assert abs(own.mean() - default.mean()) < FALSE_ALARM * error


@settings(max_examples=40)
@given(rbm_parameters())
def test_both_sides_of_an_rbm_sum_to_the_same(parameters: tuple[Tensor, Tensor, Tensor]) -> None:
    weight, visible, hidden = parameters
    over_visible = machine(weight, visible, hidden)
    over_hidden = machine(weight.T.contiguous(), hidden, visible)
    values = [
        (-prior.free_energy(all_bits(tuple(prior.event_shape)))).logsumexp(0) for prior in (over_visible, over_hidden)
    ]
    torch.testing.assert_close(*values, atol=1e-9, rtol=1e-12)
    assert exact.Exact().fit(over_visible).log_z.value == pytest.approx(values[0].item(), abs=1e-9)


@settings(max_examples=40)
@given(rbm_parameters(max_units=3))
def test_transitions_keep_every_temperature(parameters: tuple[Tensor, Tensor, Tensor]) -> None:
    prior = machine(*parameters, base_bias=torch.linspace(-1, 0.7, len(parameters[1])).double())
    for beta in BETAS:
        kernel = transition(prior, beta)
        p = (-prior.free_energy(all_bits(tuple(prior.event_shape)), beta)).softmax(0).detach()
        torch.testing.assert_close(kernel.sum(1), torch.ones(len(p)).double())
        flow = p.unsqueeze(1) * kernel
        torch.testing.assert_close(flow, flow.T)  # detailed balance


def test_ais_agrees_with_exact() -> None:
    torch.manual_seed(0)
    log_z = ais.AIS(num_chains=500, num_temperatures=300).fit(tiny()).log_z
    truth = exact.Exact().fit(tiny()).log_z
    assert abs(log_z.value - truth.value) < FALSE_ALARM * log_z.stderr
    assert log_z.side == Side.LOWER
    assert 1 <= log_z.ess <= 500
