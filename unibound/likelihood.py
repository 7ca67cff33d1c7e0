"""A likelihood: how the numbers that come out of a network are read as a distribution."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor
from torch.distributions import Distribution


class Likelihood(ABC):
    """A stateless record that turns network outputs into a distribution over data, or over latents.

    The same plugin serves p(x | tau) and q(tau | x). Final subclasses are `attrs.frozen`.
    """

    support: ClassVar[Literal["bits", "reals", "levels"]]
    """What its events are made of."""

    num_outputs: ClassVar[int] = 1
    """Network outputs per element of an event."""

    @abstractmethod
    def __call__(self, outputs: Tensor, event_dims: int) -> Distribution:
        """Map outputs [..., num_outputs, *X] to a distribution of batch shape [...] and event shape [*X].

        Args:
            outputs: what the network says [..., num_outputs, *X].
            event_dims: the number of dimensions of *X.
        """
