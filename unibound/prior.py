"""p(tau): what is believed of the latents before any datum is seen.

Shapes: *Z one latent. Everything is in nats.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from unibound.networks import Inference
from unibound.record import Record
from unibound.support import Constraint


class Prior(Record, nn.Module, ABC):
    """p(tau), normalized or not.

    `log_prob` has the value of log p*(tau) and the gradient of log p(tau), so that an estimator trains
    an unnormalized prior without knowing that it is one.

    Args:
        event_shape: the shape [*Z] of one latent, as the model below sees it.
    """

    support: ClassVar[Constraint | None]
    """What one element of tau is made of; None for a prior that is over whatever q is over."""

    small: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Settings under which its states are few enough to be listed in the exam, where by default they are not."""

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)

    @classmethod
    def support_of(cls, **settings: Any) -> Constraint | None:
        """The support it would have with given settings, for one that has it as a matter of these."""
        del settings
        return cls.support

    @property
    def log_z(self) -> float | None:
        """log of the constant by which p* exceeds p, in nats: 0.0 if normalized, None if intractable."""
        return 0.0

    @property
    def inner(self) -> Inference | None:
        """q(h | tau) of latents h that the prior keeps of its own, after those of a model; None where it has none."""
        return None

    @property
    def state_shape(self) -> torch.Size:
        """The shape [*S] of what `log_prob` is of: of one latent, and of those that the prior keeps of its own."""
        return self.event_shape

    def visible(self, state: Tensor) -> Tensor:
        """What of a state the model below sees: [..., *S] to [..., *Z]."""
        return state

    @abstractmethod
    def log_prob(self, tau: Tensor) -> Tensor:
        """Map tau [..., *Z] to [...] nats: the value of log p*(tau), the gradient of log p(tau)."""

    @abstractmethod
    def sample(self, count: int) -> Tensor:
        """Draw [count, *Z], detached; from a chain where no exact draw is known."""

    def distribution(self) -> Distribution | None:
        """p(tau) as a torch distribution of event shape [*Z]; None where it is none, which is the default."""
        return None

    def persistent(self, count: int) -> Tensor:
        """Draw [count, *Z] from the chain as it stands, without moving it; `sample` where there is none."""
        return self.sample(count)

    def advance(self) -> None:
        """Move the sampler state on; called once before each training step. Nothing to do by default."""

    def bind(self, q: Inference, x: Tensor) -> None:
        """Get to know q and the training data x [N, *X], once; for a prior that is made of them."""
        del q, x
