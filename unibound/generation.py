"""p(x, tau): the generative model, directed or not.

Shapes: *X one datum, *Z one latent. Everything is in nats.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from unibound.networks import Generator, Inference
from unibound.prior import Prior


class Generation(nn.Module, ABC):
    """p(x, tau), up to the partition function of at most one prior."""

    @property
    def unnormalized(self) -> Prior | None:
        """The prior whose log Z `log_joint` lacks; None where p(x, tau) is normalized."""
        return None

    @abstractmethod
    def log_joint(self, x: Tensor, tau: Tensor) -> Tensor:
        """Map x [..., *X] and tau [..., *Z] (broadcast) to log p*(x, tau) [...] nats."""

    @abstractmethod
    def conditional(self, tau: Tensor) -> Distribution:
        """p(x | tau) for tau [..., *Z]: batch shape [...], event shape [*X]."""

    @abstractmethod
    def dream(self, count: int, *, persistent: bool = False) -> tuple[Tensor, Tensor]:
        """Draw (x [count, *X], tau [count, *Z]) from p, detached.

        With `persistent`, tau is the state of the prior's chain as it stands.
        """

    def parts(self) -> dict[str, nn.Module]:
        """The modules with parameters of their own, by the name of their parameter group."""
        return {"p": self}

    def advance(self) -> None:
        """Move sampler state on; called once before each training step."""

    def bind(self, q: Inference, x: Tensor) -> None:
        """Get to know q and the training data x [N, *X], once."""
        del q, x


class Directed(Generation):
    """p(x, tau) = p(tau) p(x | tau)."""

    def __init__(self, prior: Prior, generator: Generator) -> None:
        super().__init__()
        self.prior = prior
        self.generator = generator

    @property
    def unnormalized(self) -> Prior | None:
        return self.prior if self.prior.log_z is None else None

    def conditional(self, tau: Tensor) -> Distribution:
        return self.generator(tau)

    def log_joint(self, x: Tensor, tau: Tensor) -> Tensor:
        return self.prior.log_prob(tau) + self.generator(tau).log_prob(x)

    def dream(self, count: int, *, persistent: bool = False) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            tau = self.prior.persistent(count) if persistent else self.prior.sample(count)
            return self.generator(tau).sample(), tau

    def parts(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "prior": self.prior}

    def advance(self) -> None:
        self.prior.advance()

    def bind(self, q: Inference, x: Tensor) -> None:
        self.prior.bind(q, x)
