"""A model: the networks of q(tau | x) and p(x | tau), as a recipe that builds them for given data."""

from abc import ABC, abstractmethod

from torch import Tensor

from unibound.joint import JointBound
from unibound.likelihood import Likelihood
from unibound.prior import Prior


class Model(ABC):
    """A stateless record of settings that builds a `JointBound`. Final subclasses are `attrs.frozen`."""

    @abstractmethod
    def latent_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape [*Z] of one latent, given that of one datum [*X]; the prior is built for it."""

    @abstractmethod
    def build(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        """Build q and p.

        Args:
            prior: p(tau), with event shape `latent_shape(x_mean.shape)`.
            likelihood: how the generator's outputs are read as p(x | tau).
            posterior: how the inference network's outputs are read as q(tau | x).
            x_mean: mean of the training data [*X], for centering inputs and starting biases.
        """
