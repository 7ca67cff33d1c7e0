"""The door: one hook per kind of plugin. Each is handed a function to call: register(name, cls).

A plugin is a module that implements one of these, named by an entry point of group `unibound`:

    [project.entry-points.unibound]
    my_estimator = "my_package.my_estimator"
"""

from __future__ import annotations  # so that reading which hooks there are imports no torch

from collections.abc import Callable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from unibound.data.splits import DataSet
    from unibound.estimator import Estimator
    from unibound.likelihood import Likelihood
    from unibound.model import Model
    from unibound.partition.log_z import PartitionEstimator
    from unibound.prior import Prior
    from unibound.transition import Transition

GROUP = "unibound"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def register_estimators(register: Callable[[str, type[Estimator]], None]) -> None:
    """Register estimators: attrs records, called with (joint, x)."""


@hookspec
def register_priors(register: Callable[[str, type[Prior]], None]) -> None:
    """Register priors: modules built as cls(event_shape, **settings); keyword parameters are settings."""


@hookspec
def register_partition_estimators(register: Callable[[str, type[PartitionEstimator]], None]) -> None:
    """Register partition estimators: attrs records that normalize an energy prior."""


@hookspec
def register_models(register: Callable[[str, type[Model]], None]) -> None:
    """Register models: attrs records that build the networks of q and p."""


@hookspec
def register_likelihoods(register: Callable[[str, type[Likelihood]], None]) -> None:
    """Register likelihoods: attrs records that read network outputs as a distribution."""


@hookspec
def register_transitions(register: Callable[[str, type[Transition]], None]) -> None:
    """Register transitions: attrs records that move the states of an energy."""


@hookspec
def register_data_sets(register: Callable[[str, type[DataSet]], None]) -> None:
    """Register data sets: attrs records that load three splits."""
