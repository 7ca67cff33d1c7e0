"""Partition functions: what is known of log Z, and how it is found."""

from unibound.partition.log_z import (
    TOLERANCE,
    LogZ,
    NormalizedPrior,
    PartitionEstimator,
    Sandwich,
    ScaledPrior,
    at_least,
    require_energy_prior,
)

__all__ = [
    "TOLERANCE",
    "LogZ",
    "NormalizedPrior",
    "PartitionEstimator",
    "Sandwich",
    "ScaledPrior",
    "at_least",
    "require_energy_prior",
]
