"""Partition functions: what is known of log Z, and on which side it errs."""

from abc import ABC, abstractmethod
from typing import Literal

import attrs
import torch
from torch import Tensor

from unibound.errors import UsageError
from unibound.joint import EnergyPrior, Prior

StochasticSide = Literal["equal", "stochastic_lower", "stochastic_upper"]
OPPOSITE: dict[StochasticSide, StochasticSide] = {
    "equal": "equal",
    "stochastic_lower": "stochastic_upper",
    "stochastic_upper": "stochastic_lower",
}


@attrs.frozen
class LogZ:
    """A value for log Z, in nats.

    Args:
        value: the estimate.
        stderr: its standard error; 0.0 where it is exact.
        side: `equal` if exact; `stochastic_lower` if E[value] <= log Z, as for AIS, so that likelihoods
            normalized by it are flattered; `stochastic_upper` for the reverse.
        ess: effective sample size of the weights behind it, out of `num_chains`; None where exact.
        num_chains: number of independent chains; None where exact.
    """

    value: float
    stderr: float = 0.0
    side: StochasticSide = "equal"
    ess: float | None = None
    num_chains: int | None = None

    @property
    def trustworthy(self) -> bool:
        """False where the weights collapsed: fewer than 5% of the chains carry the estimate."""
        return self.ess is None or self.num_chains is None or self.ess >= 0.05 * self.num_chains


class NormalizedPrior(ABC):
    """log p(tau) for a prior whose log Z had to be estimated."""

    log_z: LogZ | None
    side: StochasticSide
    """Where the expected `log_prob` lies relative to `of`; for one number for log Z, the opposite of its side."""
    of: str
    """What exactly `log_prob` is, or bounds: `log p`, `log p_ann`."""

    def __init__(self, prior: Prior) -> None:
        self.prior = prior

    @abstractmethod
    def log_correction(self, tau: Tensor) -> Tensor:
        """What to add to log p*(tau) to normalize it: [..., *Z] to [...] nats, float64."""

    def log_prob(self, tau: Tensor) -> Tensor:
        """Normalized log-density: [..., *Z] to [...] nats, float64."""
        return self.prior.log_prob(tau).double() + self.log_correction(tau)


class ScaledPrior(NormalizedPrior):
    """p*(tau) / Z with one number for log Z, as enumeration and AIS give it."""

    of = "log p"

    def __init__(self, prior: Prior, log_z: LogZ) -> None:
        super().__init__(prior)
        self.log_z: LogZ = log_z
        self.side = OPPOSITE[log_z.side]

    def log_correction(self, tau: Tensor) -> Tensor:
        lead = tau.shape[: tau.dim() - len(self.prior.event_shape)]
        return tau.new_full(lead, -self.log_z.value, dtype=torch.float64)


class PartitionEstimator(ABC):
    """A stateless record of settings that normalizes a prior. Final subclasses are `attrs.frozen`."""

    @abstractmethod
    def fit(self, prior: EnergyPrior) -> NormalizedPrior:
        """Estimate what normalizes the prior; the prior's base distribution has been fitted already."""


def require_energy_prior(name: str, prior: Prior) -> EnergyPrior:
    """Return the prior if it has an energy; UsageError otherwise, naming the partition estimator."""
    if not isinstance(prior, EnergyPrior):
        raise UsageError(
            f"{name} estimates the log Z of an EnergyPrior, but {type(prior).__name__} has none; leave it out"
        )
    return prior
