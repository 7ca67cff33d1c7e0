"""log Z from both sides: annealing forward, and in reverse from draws of the model."""

import attrs

from unibound import EnergyPrior, NormalizedPrior, PartitionEstimator, ScaledPrior, hookimpl
from unibound.partition import TOLERANCE, annealing, at_least, require_energy_prior, schedules


@attrs.frozen
class BDMC(PartitionEstimator):
    """A sandwich of log Z: forward chains err low, reverse chains that begin at draws of the model err high.

        E[log mean w] <= log Z / Z_0 <= E[-log mean w']    for exact draws

    Likelihoods are normalized by the upper end, so they err low; the distance of the two ends says how far
    log Z can be off. Draws are exact where the prior can be listed. Otherwise they are the ends of a long Gibbs
    run from the persistent chains: the upper side then holds only if that run reached the model, and the
    result says so (`heuristic`).

    Args:
        num_chains: chains M in each direction.
        num_temperatures: transitions T; by default 1000, or 14500 for piecewise.
        schedule: linear, piecewise, sigmoid or adaptive; see ais.
        betas: temperatures of your own, from 0 to 1, instead of a schedule.
        num_steps: Gibbs steps of the run that draws from a prior too large to be listed.
        tolerance: nats by which the two ends may differ before the result is marked untrustworthy.

    Source: Grosse, Ghahramani and Adams, "Sandwiching the marginal likelihood using bidirectional Monte
    Carlo" (2015), https://arxiv.org/abs/1511.02543
    """

    num_chains: int = attrs.field(default=500, validator=at_least(1))
    num_temperatures: int | None = attrs.field(default=None, validator=at_least(1))
    schedule: schedules.Name = schedules.field()
    betas: tuple[float, ...] = schedules.betas_field()
    num_steps: int = attrs.field(default=1000, validator=at_least(0))
    tolerance: float = attrs.field(default=TOLERANCE, validator=attrs.validators.gt(0.0))

    def fit(self, prior: EnergyPrior) -> NormalizedPrior:
        prior = require_energy_prior("bdmc", prior)
        path = schedules.choose(self.schedule, self.num_temperatures, self.betas, prior)
        both, _ = annealing.sandwich(prior, path, self.num_chains, self.num_steps)
        return ScaledPrior(prior, attrs.evolve(both, tolerance=self.tolerance))


@hookimpl
def register_partition_estimators(register):
    register("bdmc", BDMC)
