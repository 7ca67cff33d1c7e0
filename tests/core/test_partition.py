"""What is said of log Z, and of a prior once it is known."""

import pytest
import torch

from unibound import LogZ, ScaledPrior, UsageError
from unibound.partition import require_energy_prior
from unibound.testing.listing import all_bits, scatter
from unibound.testing.priors import Rates, Table


def test_collapsed_weights_are_not_trustworthy() -> None:
    assert LogZ(3.0).trustworthy
    assert LogZ(3.0, 0.01, "lower", ess=90.0, num_chains=100).trustworthy
    assert not LogZ(3.0, 0.01, "lower", ess=2.0, num_chains=100).trustworthy


def test_scaled_prior_is_normalized_by_one_number() -> None:
    prior, taus = scatter(Table((2,)), 0), all_bits((2,))
    log_z = (-prior.free_energy(taus)).logsumexp(0).item()
    scaled = ScaledPrior(prior, LogZ(log_z))
    assert scaled.of == "log p"
    assert scaled.log_z == LogZ(log_z)
    assert scaled.log_prob(taus).exp().sum().item() == pytest.approx(1.0)
    assert scaled.log_correction(taus.expand(3, 4, 2)).shape == (3, 4)


def test_scaled_prior_answers_in_float64() -> None:
    prior = scatter(Table((2,)), 0).float()
    tau = prior.base_sample(5)
    assert tau.dtype == torch.float32
    assert ScaledPrior(prior, LogZ(1.0)).log_prob(tau).dtype == torch.float64


def test_a_prior_without_energy_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"ais .*Rates"):
        require_energy_prior("ais", Rates((2,)))
    prior = Table((2,))
    assert require_energy_prior("ais", prior) is prior
