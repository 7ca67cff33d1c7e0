"""The plugins that stand where none is named: the one page of the core that knows names of plugins.

A name is looked up when it is needed: what needs no log Z does not fail because nothing that finds it is installed.
"""

from collections.abc import Mapping

from unibound import support
from unibound.errors import UsageError
from unibound.likelihood import Likelihood
from unibound.partition import PartitionEstimator
from unibound.registry import registries
from unibound.support import Constraint

ESTIMATOR = "vimco"
DATA_SET = "digits"
MODEL = "mlp"
PRIOR = "rbm"
LIKELIHOOD = "bernoulli"
PARTITION_ESTIMATOR = "ais"

_TWO_SIDED = "bdmc"
BITS, SPINS, REALS, CATEGORIES = "bits", "spins", "gaussian", "potts"
_RBMS = {BITS: "rbm", SPINS: "spin_rbm", REALS: "gaussian_rbm", CATEGORIES: "potts_rbm"}
_PREFERRED = (LIKELIHOOD, "gaussian")
"""Likelihoods that come first where several are over the same values."""


def two_sided() -> PartitionEstimator:
    """What finds log Z from both sides where nobody says how to find it."""
    return registries()["partition_estimator"][_TWO_SIDED]()


def rbm(unit: str) -> type:
    """The prior that files of restricted Boltzmann machines with these visible units are read as."""
    if unit not in _RBMS:
        raise UsageError(f"unknown unit {unit!r}; choose one of {', '.join(_RBMS)}")
    return registries()["prior"][_RBMS[unit]]


def likelihood_over(wanted: Constraint | None) -> Likelihood:
    """What q(tau | x) is read by where no posterior is chosen, for a prior over given values.

    Raises:
        UsageError: no likelihood installed is over them.
    """
    known: Mapping[str, type[Likelihood]] = registries()["likelihood"]
    if wanted is None:
        return known[LIKELIHOOD]()
    for name in sorted(known, key=lambda name: (name not in _PREFERRED, name)):
        if (made := known[name].over(wanted)) is not None:
            return made
    raise UsageError(f"no likelihood installed is over {support.describe(wanted)}, as the prior is; name a posterior")
