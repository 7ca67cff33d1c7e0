"""No networks at all: the latent is the datum, so that the prior is a model of the data."""

import attrs
from torch import Tensor
from torch.distributions import Distribution

from unibound import Directed, Generator, Inference, JointBound, Likelihood, Model, Prior, hookimpl
from unibound.distributions import PointMass
from unibound.support import Constraint, require


class IdentityInference(Inference):
    """q(tau | x): all mass on tau = x, which must be something the prior is over."""

    def __init__(self, event_dims: int, support: Constraint | None) -> None:
        super().__init__()
        self.event_dims, self.support = event_dims, support

    def forward(self, x: Tensor) -> Distribution:
        require(self.support, x, "identity takes data for latents, and its prior")
        return PointMass(x, self.event_dims, self.support)


class IdentityGenerator(Generator):
    """p(x | tau): all mass on x = tau."""

    def __init__(self, event_dims: int, support: Constraint | None) -> None:
        super().__init__()
        self.event_dims, self.support = event_dims, support

    def forward(self, tau: Tensor) -> Distribution:
        return PointMass(tau, self.event_dims, self.support)


@attrs.frozen
class Identity(Model):
    """The prior itself as a model of the data: with `rbm`, a plain restricted Boltzmann machine.

        q(tau | x) = 1 if tau = x,  p(x | tau) = 1 if x = tau,  so log w = log p*(x) for every particle

    It is trained, evaluated and drawn like any other model; one particle is as good as many. Likelihood
    and posterior play no part: data must be what the prior is over.
    """

    def data_support(self, prior: Constraint | None, likelihood: Likelihood) -> Constraint | None:
        return prior

    def prior_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return x_shape

    def assemble(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        dims, support = x_mean.dim(), prior.support
        return JointBound(IdentityInference(dims, support), Directed(prior, IdentityGenerator(dims, support)))


@hookimpl
def register_models(register):
    register("identity", Identity)
