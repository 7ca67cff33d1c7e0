"""log Z by annealed importance sampling."""

import math

import attrs
import torch

from unibound import EnergyPrior, LogZ, NormalizedPrior, PartitionEstimator, ScaledPrior, hookimpl
from unibound.weights import effective_sample_size, log_mean_exp


@attrs.frozen
class AIS(PartitionEstimator):
    """Chains carried from the base distribution to the model, weighed at every temperature.

        E[w] = Z / Z_0 exactly, so E[log Z_hat] <= log Z:

    log Z is under-estimated and likelihoods normalized by it are flattered, by an amount that shrinks
    with more temperatures and chains.

    Args:
        num_chains: independent chains M.
        num_temperatures: transitions T, spread evenly over [0, 1].

    Source: Salakhutdinov and Murray, "On the quantitative analysis of deep belief networks" (2008),
    https://www.cs.toronto.edu/~rsalakhu/papers/dbn_ais.pdf
    """

    num_chains: int = attrs.field(default=500, validator=attrs.validators.ge(2))
    num_temperatures: int = attrs.field(default=1000, validator=attrs.validators.ge(1))

    def fit(self, prior: EnergyPrior) -> NormalizedPrior:
        betas = torch.linspace(0, 1, self.num_temperatures + 1, dtype=torch.float64)
        _, log_w = prior.anneal(prior.base_sample(self.num_chains), betas)  # [M]
        # Delta method: the relative error of the mean weight is the absolute error of its log.
        ess = effective_sample_size(log_w.unsqueeze(1)).item()
        relative_variance = (self.num_chains / ess - 1) / (self.num_chains - 1)
        log_z = LogZ(
            value=prior.base_log_z() + log_mean_exp(log_w).item(),
            stderr=math.sqrt(relative_variance),
            side="stochastic_lower",
            ess=ess,
            num_chains=self.num_chains,
        )
        return ScaledPrior(prior, log_z)


@hookimpl
def register_partition_estimators(register):
    register("ais", AIS)
