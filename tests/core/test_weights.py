"""Functions on log-weights [K, B]."""

import math

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from unibound import weights
from unibound.testing.strategies import log_weights


@settings(max_examples=200)
@given(log_weights(min_particles=1))
def test_log_mean_exp_lies_between_mean_and_maximum(log_w: Tensor) -> None:
    bound = weights.log_mean_exp(log_w)
    slack = 1e-9 * (1 + log_w.abs().amax(0))
    assert (log_w.mean(0) - slack <= bound).all()
    assert (bound <= log_w.amax(0) + slack).all()


@settings(max_examples=200)
@given(log_weights(min_particles=1))
def test_normalized_weights_sum_to_one_and_do_not_see_a_shift(log_w: Tensor) -> None:
    w_norm = weights.normalized(log_w)
    torch.testing.assert_close(w_norm.sum(0), torch.ones(log_w.shape[1]).double())
    torch.testing.assert_close(weights.normalized(log_w - 77.0), w_norm, atol=1e-9, rtol=1e-7)


@settings(max_examples=200)
@given(log_weights(min_particles=1))
def test_effective_sample_size_lies_between_one_and_all(log_w: Tensor) -> None:
    ess = weights.effective_sample_size(log_w)
    assert (ess >= 1 - 1e-9).all()
    assert (ess <= len(log_w) * (1 + 1e-9)).all()
    same = weights.effective_sample_size(torch.zeros_like(log_w) + log_w[:1])
    torch.testing.assert_close(same, torch.full_like(ess, len(log_w)))


def test_effective_sample_size_is_its_definition() -> None:
    log_w = torch.randn(5, 3, dtype=torch.float64)
    w = log_w.exp()
    torch.testing.assert_close(weights.effective_sample_size(log_w), w.sum(0) ** 2 / (w**2).sum(0))


@settings(max_examples=100)
@given(log_weights(largest=30.0))
def test_vimco_signal_is_its_definition(log_w: Tensor) -> None:
    k = len(log_w)
    signal = torch.zeros_like(log_w)
    for i in range(k):
        replaced = log_w.clone()
        replaced[i] = (log_w.sum(0) - log_w[i]) / (k - 1)  # log of the geometric mean of the others
        signal[i] = weights.log_mean_exp(log_w) - weights.log_mean_exp(replaced)
    torch.testing.assert_close(weights.vimco_signal(log_w), signal, atol=1e-8, rtol=1e-8)


def test_vimco_signal_of_one_particle_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        weights.vimco_signal(torch.zeros(1, 4))


def test_weights_that_underflow_do_no_harm() -> None:
    log_w = torch.tensor([[-812.0], [-805.0], [-900.0]])  # float32, where exp of each is 0
    assert weights.log_mean_exp(log_w).item() == pytest.approx(-805 + math.log((1 + math.exp(-7)) / 3), abs=1e-3)
    assert weights.vimco_signal(log_w).isfinite().all()
    assert weights.effective_sample_size(log_w).item() == pytest.approx(1.0, abs=1e-2)
