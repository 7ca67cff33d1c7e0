"""unibound: deep generative models with latent variables, and how good they really are."""

from unibound.data.splits import DataSet, Splits
from unibound.energy import EnergyPrior, Enumeration
from unibound.errors import NonFiniteError, PluginError, UniboundError, UsageError
from unibound.estimator import Estimate, Estimator
from unibound.generation import Directed, Generation
from unibound.hookspecs import hookimpl
from unibound.joint import Divergence, JointBound, Particles
from unibound.likelihood import Likelihood
from unibound.model import Model
from unibound.networks import Generator, Inference
from unibound.partition.log_z import LogZ, NormalizedPrior, PartitionEstimator, ScaledPrior
from unibound.prior import Prior
from unibound.registry import registries
from unibound.runs.run import Run

__version__ = "0.1.0"

__all__ = [
    "DataSet",
    "Directed",
    "Divergence",
    "EnergyPrior",
    "Enumeration",
    "Estimate",
    "Estimator",
    "Generation",
    "Generator",
    "Inference",
    "JointBound",
    "Likelihood",
    "LogZ",
    "Model",
    "NonFiniteError",
    "NormalizedPrior",
    "Particles",
    "PartitionEstimator",
    "PluginError",
    "Prior",
    "Run",
    "ScaledPrior",
    "Splits",
    "UniboundError",
    "UsageError",
    "hookimpl",
    "registries",
]
