"""The door: one hook per kind of plugin. Each is handed a function to call: register(name, cls).

A plugin is a module that implements one of these, named by an entry point of group `unibound`:

    [project.entry-points.unibound]
    my_estimator = "my_package.my_estimator"
"""

from __future__ import annotations  # so that reading which hooks there are imports no torch

import os
import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

import pluggy

from unibound.errors import UsageError

if TYPE_CHECKING:
    from unibound.data.splits import DataSet
    from unibound.energies.transition import Transition
    from unibound.estimator import Estimator
    from unibound.likelihood import Likelihood
    from unibound.model import Model
    from unibound.partition.log_z import PartitionEstimator
    from unibound.prior import Prior

GROUP = "unibound"
OWN_DISTRIBUTION = "unibound"
CHOSEN = "UNIBOUND_PLUGINS"
"""The variable that names distributions, with commas between them: their plugins are there, and no stranger's else."""
NAME = re.compile("[a-z][a-z0-9_]*")
"""What a plugin may be called."""

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


def points() -> list[EntryPoint]:
    """The entry points of plugins: all that are installed, or the built-in ones and those that are chosen.

    Raises:
        UsageError: a distribution is chosen that has none.
    """
    found = list(entry_points(group=GROUP))
    if (chosen := os.environ.get(CHOSEN)) is None:
        return found
    wanted = {_plain(name) for name in chosen.split(",") if name.strip()}
    if strays := wanted - {_plain(distribution(point)) for point in found}:
        raise UsageError(f"{CHOSEN} names {', '.join(sorted(strays))}, which has no plugins, or is not installed")
    return [point for point in found if _plain(distribution(point)) in wanted | {OWN_DISTRIBUTION}]


def distribution(point: EntryPoint) -> str:
    """The distribution that an entry point comes from."""
    return point.dist.name if point.dist is not None else "an unnamed distribution"


def _plain(name: str) -> str:
    return re.sub("[-_.]+", "-", name.strip()).lower()


def printable(text: str) -> str:
    """The same without what could move the cursor, or worse, of a terminal that shows it."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)
