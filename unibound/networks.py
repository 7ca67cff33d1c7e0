"""The two networks: each builds a distribution, and is then asked.

Shapes: B batch, *X one datum, *Z one latent.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.distributions import Distribution


class Inference(nn.Module, ABC):
    """q(tau | x): a network that builds a distribution over all latents of each datum."""

    @abstractmethod
    def forward(self, x: Tensor) -> Distribution:
        """Map x [B, *X] to a distribution of batch shape [B] and event shape [*Z]."""


class Generator(nn.Module, ABC):
    """p(x | tau): a network that builds a distribution over data from each latent."""

    @abstractmethod
    def forward(self, tau: Tensor) -> Distribution:
        """Map tau [..., *Z] to a distribution of batch shape [...] and event shape [*X]."""
