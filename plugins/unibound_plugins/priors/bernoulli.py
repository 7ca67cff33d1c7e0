"""Independent bits with learned rates, as a prior."""

import torch
from torch import Tensor, nn

from unibound import Prior, hookimpl
from unibound.distributions import Bits
from unibound.support import boolean


class Bernoulli(Prior):
    """p(tau) = prod_i Bernoulli(tau_i; sigmoid(l_i)), with the logits l learned.

    Args:
        event_shape: shape [*Z] of one latent.
    """

    support = boolean

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape)
        self.logits = nn.Parameter(torch.zeros(event_shape))

    def log_prob(self, tau: Tensor) -> Tensor:
        return Bits(self.logits, len(self.event_shape)).log_prob(tau)

    def sample(self, count: int) -> Tensor:
        return Bits(self.logits, len(self.event_shape)).sample((count,))


@hookimpl
def register_priors(register):
    register("bernoulli", Bernoulli)
