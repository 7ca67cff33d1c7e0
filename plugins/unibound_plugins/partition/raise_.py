"""Likelihoods that do not flatter: every latent annealed in reverse."""

import attrs

from unibound import EnergyPrior, NormalizedPrior, PartitionEstimator, hookimpl
from unibound.partition import at_least, require_energy_prior, schedules
from unibound.partition.annealing import RaisedPrior


@attrs.frozen
class Raise(PartitionEstimator):
    """Reverse chains from each latent give an unbiased estimate of its probability under the annealing model.

        E[p_hat(tau)] = p_ann(tau),   E[log p_hat(tau)] <= log p_ann(tau)

    p_ann, the distribution in which forward chains end, is a normalized model in its own right and tends to p
    with more temperatures. The result is a bound on its likelihood. It is not one on log p(tau), which it can
    exceed. An evaluation spends chains on `num_draws` particles per datum, drawn by importance weight: the
    estimate stays unbiased, and particles that count for nothing cost nothing.

    Args:
        num_chains: reverse chains per latent, combined as log of the mean.
        num_temperatures: transitions T; by default 1000, or 14500 for piecewise.
        schedule: linear, piecewise, sigmoid or adaptive; see ais.
        betas: temperatures of your own, from 0 to 1, instead of a schedule.
        num_draws: particles per datum that an evaluation anneals.

    Source: Burda, Grosse and Salakhutdinov, "Accurate and conservative estimates of MRF log-likelihood using
    reverse annealing" (2015), https://arxiv.org/abs/1412.8566
    """

    num_chains: int = attrs.field(default=1, validator=at_least(1))
    num_temperatures: int | None = attrs.field(default=None, validator=at_least(1))
    schedule: schedules.Name = schedules.field()
    betas: tuple[float, ...] = schedules.betas_field()
    num_draws: int = attrs.field(default=5, validator=at_least(1))

    def fit(self, prior: EnergyPrior) -> NormalizedPrior:
        prior = require_energy_prior("raise", prior)
        path = schedules.choose(self.schedule, self.num_temperatures, self.betas, prior)
        return RaisedPrior(prior, path, self.num_chains, self.num_draws)


@hookimpl
def register_partition_estimators(register):
    register("raise", Raise)
