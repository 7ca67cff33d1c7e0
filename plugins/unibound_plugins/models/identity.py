"""No networks at all: the latent is the datum, so that the prior is a model of the data."""

import attrs
from torch import Tensor
from torch.distributions import Distribution

from unibound import Directed, Generator, Inference, JointBound, Likelihood, Model, Prior, hookimpl
from unibound.distributions import PointMass, require_bits


class IdentityInference(Inference):
    """q(tau | x): all mass on tau = x."""

    def __init__(self, event_dims: int, bits: bool) -> None:
        super().__init__()
        self.event_dims, self.bits = event_dims, bits

    def forward(self, x: Tensor) -> Distribution:
        if self.bits:
            require_bits("identity, with a prior over bits,", x)
        return PointMass(x, self.event_dims)


class IdentityGenerator(Generator):
    """p(x | tau): all mass on x = tau."""

    def __init__(self, event_dims: int) -> None:
        super().__init__()
        self.event_dims = event_dims

    def forward(self, tau: Tensor) -> Distribution:
        return PointMass(tau, self.event_dims)


@attrs.frozen
class Identity(Model):
    """The prior itself as a model of the data: with `rbm`, a plain restricted Boltzmann machine.

        q(tau | x) = 1 if tau = x,  p(x | tau) = 1 if x = tau,  so log w = log p*(x) for every particle

    It is trained, evaluated and drawn like any other model; one particle is as good as many. The
    likelihood plays no part, and the posterior only says what the prior is over: with bits, data must
    be bits.
    """

    def latent_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return x_shape

    def build(self, prior: Prior, likelihood: Likelihood, posterior: Likelihood, x_mean: Tensor) -> JointBound:
        event_dims = x_mean.dim()
        inference = IdentityInference(event_dims, posterior.support == "bits")
        return JointBound(inference, Directed(prior, IdentityGenerator(event_dims)))


@hookimpl
def register_models(register):
    register("identity", Identity)
