"""log Z by listing every state of the smaller side."""

import attrs

from unibound import EnergyPrior, LogZ, NormalizedPrior, PartitionEstimator, ScaledPrior, UsageError, hookimpl
from unibound.partition import enumeration, require_energy_prior
from unibound.support import describe


@attrs.frozen
class Exact(PartitionEstimator):
    """Sum over all states, streamed in chunks, in float64.

    An RBM is summed over whichever of its two sides has fewer units.

    Args:
        max_bits: refuse to list more than 2^max_bits states.
        chunk_bits: states held in memory at once, as a power of two.
    """

    max_bits: int = attrs.field(default=24, validator=[attrs.validators.ge(1), attrs.validators.le(40)])
    chunk_bits: int = attrs.field(default=14, validator=[attrs.validators.ge(1), attrs.validators.le(24)])

    def check(self, prior: EnergyPrior) -> None:
        states = prior.enumeration()
        if states is None:
            over = describe(prior.support)
            raise UsageError(f"exact lists states, but {type(prior).__name__} is over {over}; use ais or bdmc")
        if states.num_bits > self.max_bits:
            raise UsageError(
                f"exact would list 2^{states.num_bits} states, more than 2^{self.max_bits}; use ais or bdmc"
            )

    def fit(self, prior: EnergyPrior) -> NormalizedPrior:
        prior = require_energy_prior("exact", prior)
        self.check(prior)
        return ScaledPrior(prior, LogZ(enumeration.log_sum(prior, self.chunk_bits)))


@hookimpl
def register_partition_estimators(register):
    register("exact", Exact)
