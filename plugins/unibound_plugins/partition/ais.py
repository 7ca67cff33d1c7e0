"""log Z by annealed importance sampling."""

from pathlib import Path

import attrs

from unibound import EnergyPrior, NormalizedPrior, PartitionEstimator, ScaledPrior, hookimpl
from unibound.partition import at_least, require_energy_prior, schedules, shards


@attrs.frozen
class AIS(PartitionEstimator):
    """Chains carried from the base distribution to the model, weighed at every temperature.

        E[w] = Z / Z_0 exactly, so E[log Z_hat] <= log Z:

    log Z is under-estimated and likelihoods normalized by it are flattered, by an amount that shrinks
    with more temperatures and chains. A mode that no chain found leaves no trace in the error bar; `bdmc`
    looks from the other side. With several walkers each chain is a population, in which the light make room for copies
    of the heavy: where modes part on the way, that finds their shares again.

    Args:
        num_chains: independent chains M.
        num_temperatures: transitions T; by default 1000, or 14500 for piecewise.
        schedule: linear; piecewise, as Salakhutdinov and Murray have it; sigmoid; or adaptive, which holds the
            conditional effective sample size.
        betas: temperatures of your own, from 0 to 1, instead of a schedule.
        target_stderr: add chains, num_chains at a time, until the standard error is this small, in nats;
            0 does not.
        max_chains: never run more chains than this.
        num_processes: processes that share the chains.
        state: file that keeps finished chains, so that an interrupted run goes on; none if empty.
        walkers: of each chain, which costs as many times more; one for plain annealing.

    Source: Salakhutdinov and Murray, "On the quantitative analysis of deep belief networks" (2008),
    https://www.cs.toronto.edu/~rsalakhu/papers/dbn_ais.pdf; for populations, Hukushima and Iba, "Population annealing
    and its application to a spin glass" (2003), https://doi.org/10.1063/1.1632130
    """

    num_chains: int = attrs.field(default=500, validator=at_least(1))
    num_temperatures: int | None = attrs.field(default=None, validator=at_least(1))
    schedule: schedules.Name = schedules.field()
    betas: tuple[float, ...] = schedules.betas_field()
    target_stderr: float = attrs.field(default=0.0, validator=attrs.validators.ge(0.0))
    max_chains: int = attrs.field(default=100_000, validator=at_least(1))
    num_processes: int = attrs.field(default=1, validator=at_least(1))
    state: str = ""
    walkers: int = attrs.field(default=1, validator=at_least(1))

    def fit(self, prior: EnergyPrior) -> NormalizedPrior:
        prior = require_energy_prior("ais", prior)
        path = schedules.choose(self.schedule, self.num_temperatures, self.betas, prior)
        log_z = shards.estimate(
            prior,
            path,
            self.num_chains,
            target_stderr=self.target_stderr,
            max_chains=self.max_chains,
            num_processes=self.num_processes,
            state=Path(self.state) if self.state else None,
            walkers=self.walkers,
        )
        return ScaledPrior(prior, log_z)


@hookimpl
def register_partition_estimators(register):
    register("ais", AIS)
