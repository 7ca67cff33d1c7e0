"""A model: the networks of q(tau | x) and p(x | tau), as a recipe that builds them for given data."""

from abc import ABC, abstractmethod

from torch import Tensor

from unibound.errors import UsageError
from unibound.joint import JointBound
from unibound.likelihood import Likelihood
from unibound.prior import Prior
from unibound.record import Record
from unibound.support import Constraint


class Model(Record, ABC):
    """A stateless record of settings that builds a `JointBound`. Final subclasses are `attrs.frozen`."""

    def data_support(self, prior: Constraint | None, likelihood: Likelihood) -> Constraint | None:
        """What data are made of, given what the prior is over: by default what the likelihood is over."""
        del prior
        return likelihood.support

    @abstractmethod
    def prior_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Event shape of the prior, given the shape of one datum [*X]. The shape of tau is q's own affair."""

    def build(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        """Build q and p; where the prior keeps latents of its own, q draws them after those of the model.

        Args:
            prior: of event shape `prior_shape(x_mean.shape)`.
            likelihood: how the generator's outputs are read as p(x | tau).
            posterior: how the inference network's outputs are read as q(tau | x), where the prior is over them.
            x_mean: mean of the training data [*X], for centering inputs and starting biases.
        Raises:
            UsageError: a prior of another shape, or parts that this model cannot put together.
        """
        wanted, got = tuple(self.prior_shape(tuple(x_mean.shape))), tuple(prior.event_shape)
        if got != wanted:
            who = type(self).__name__.lower()
            raise UsageError(
                f"{who} has latents of shape {list(wanted)}, but its prior events of shape {list(got)}; "
                f"build the prior for {list(wanted)}"
            )
        joint = self.assemble(prior, likelihood, posterior, x_mean)
        if prior.inner is None:
            return joint
        own = prior.state_shape.numel() - prior.event_shape.numel()
        return JointBound(joint.q.extended(prior.inner, own), joint.p)

    @abstractmethod
    def assemble(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        """What `build` does once the prior is known to fit."""
