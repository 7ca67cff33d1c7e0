"""log Z by listing every state of the smaller side."""

import copy

import attrs
import torch

from unibound import EnergyPrior, LogZ, NormalizedPrior, PartitionEstimator, ScaledPrior, UsageError, hookimpl


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

    @torch.no_grad()
    def fit(self, prior: EnergyPrior) -> NormalizedPrior:
        states = prior.enumeration()
        if states.num_bits > self.max_bits:
            raise UsageError(f"exact would list 2^{states.num_bits} states, more than 2^{self.max_bits}; use ais")
        wide = copy.deepcopy(prior).double()
        log_f, device = wide.enumeration().log_f, wide.chains.device
        low = min(states.num_bits, self.chunk_bits)
        powers = torch.arange(states.num_bits, device=device)
        sums = []
        for start in range(0, 1 << states.num_bits, 1 << low):
            index = torch.arange(start, start + (1 << low), device=device)
            bits = (index.unsqueeze(1) >> powers & 1).double()  # [2^low, num_bits]
            sums.append(log_f(bits).logsumexp(0))
        return ScaledPrior(prior, LogZ(torch.stack(sums).logsumexp(0).item()))


@hookimpl
def register_partition_estimators(register):
    register("exact", Exact)
