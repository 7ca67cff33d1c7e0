"""unibound: deep generative models with latent variables, and how good they really are."""

from unibound.claim import Interval, Side
from unibound.data.splits import DataSet, Splits
from unibound.energy import EnergyPrior, Enumeration
from unibound.errors import NonFiniteError, PluginError, UniboundError, UsageError
from unibound.estimator import Estimate, Estimator
from unibound.generation import Directed, Generation, Layered
from unibound.hookspecs import hookimpl
from unibound.joint import Divergence, JointBound, Particles
from unibound.likelihood import Likelihood
from unibound.model import Model
from unibound.moved import forward
from unibound.networks import Generator, Inference, Upward
from unibound.partition.log_z import LogZ, NormalizedPrior, PartitionEstimator, Sandwich, ScaledPrior
from unibound.prior import Prior
from unibound.registry import registries
from unibound.runs.run import Run
from unibound.transition import Transition

__version__ = "0.2.0"

forward()

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
    "Interval",
    "JointBound",
    "Layered",
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
    "Sandwich",
    "ScaledPrior",
    "Side",
    "Splits",
    "Transition",
    "UniboundError",
    "Upward",
    "UsageError",
    "hookimpl",
    "registries",
]
