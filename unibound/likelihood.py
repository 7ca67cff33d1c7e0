"""A likelihood: how the numbers that come out of a network are read as a distribution."""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.distributions import Distribution

from unibound.record import Record
from unibound.support import Constraint, same


class Likelihood(Record, ABC):
    """A stateless record that turns network outputs into a distribution over data, or over latents.

    The same plugin serves p(x | tau) and q(tau | x). Final subclasses are `attrs.frozen`.
    """

    support: ClassVar[Constraint]
    """What one element of its events is made of; a property where that is a matter of settings."""

    @classmethod
    def over(cls, wanted: Constraint) -> Self | None:
        """One whose events are made of given values, None where there is none: by default as it is, if it is over them.

        For a likelihood whose support is a matter of settings to say which settings these are.
        """
        own = getattr(cls, "support", None)
        return cls() if isinstance(own, Constraint) and same(own, wanted) else None

    def outputs(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what a network has to say of one event [*X]: by default one number per element."""
        return tuple(event_shape)

    def start(self, mean: Tensor) -> Tensor:
        """Outputs [*outputs(X)] for a network to begin at that knows the mean of the data [*X]: by default zeros.

        What all data share is then nothing that latents have to say.
        """
        return mean.new_zeros(self.outputs(tuple(mean.shape)))

    @abstractmethod
    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        """Map outputs [..., *outputs(event_shape)] to a distribution of batch shape [...] and event shape [*X].

        Args:
            outputs: what the network says.
            event_shape: shape [*X] of one event.
        """


class Located(Likelihood):
    """One whose two outputs per element are its location, near its mean, and its scale before a softplus."""

    def outputs(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2, *event_shape)

    def start(self, mean: Tensor) -> Tensor:
        return torch.stack([mean, torch.zeros_like(mean)])
