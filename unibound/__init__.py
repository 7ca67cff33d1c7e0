"""unibound: deep generative models with latent variables, and how good they really are."""

import ast
import functools
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from unibound.moved import forward

if TYPE_CHECKING:  # Importing these imports torch, so each is imported when it is asked for: `__getattr__` reads here.
    from unibound.claim import Interval, Side
    from unibound.data.splits import DataSet, Splits
    from unibound.energies.energy import EnergyPrior, Enumeration
    from unibound.energies.transition import Transition
    from unibound.errors import NonFiniteError, PluginError, UniboundError, UsageError
    from unibound.estimator import Estimate, Estimator
    from unibound.front.certify import certify
    from unibound.front.fit import fit, load
    from unibound.front.trained import Trained
    from unibound.generation import Directed, Generation, Layered
    from unibound.hookspecs import hookimpl
    from unibound.joint import Backward, Divergence, JointBound, Particles
    from unibound.likelihood import Likelihood
    from unibound.loggers.logger import Logger
    from unibound.model import Model
    from unibound.networks import Downward, Generator, Inference, Upward
    from unibound.partition.log_z import LogZ, NormalizedPrior, PartitionEstimator, Sandwich, ScaledPrior
    from unibound.prior import Prior
    from unibound.registry import registries
    from unibound.runs.run import Run

__version__ = "0.2.0"

forward()

__all__ = [
    "Backward",
    "DataSet",
    "Directed",
    "Divergence",
    "Downward",
    "EnergyPrior",
    "Enumeration",
    "Estimate",
    "Estimator",
    "Generation",
    "Generator",
    "Inference",
    "Interval",
    "JointBound",
    "Layered",
    "Likelihood",
    "LogZ",
    "Logger",
    "Model",
    "NonFiniteError",
    "NormalizedPrior",
    "Particles",
    "PartitionEstimator",
    "PluginError",
    "Prior",
    "Run",
    "Sandwich",
    "ScaledPrior",
    "Side",
    "Splits",
    "Trained",
    "Transition",
    "UniboundError",
    "Upward",
    "UsageError",
    "certify",
    "fit",
    "hookimpl",
    "load",
    "registries",
]


def __getattr__(name: str) -> object:
    """A public name, from the module that defines it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_modules()[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


@functools.cache
def _modules() -> dict[str, str]:
    """The module of each public name, as the imports for type checkers have it."""
    imports = [node for node in ast.walk(ast.parse(Path(__file__).read_text())) if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}
