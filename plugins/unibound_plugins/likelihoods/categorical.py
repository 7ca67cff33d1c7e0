"""Independent categories, in no order."""

from typing import Self

import attrs
from torch import Tensor
from torch.distributions import Distribution

from unibound import Likelihood, hookimpl
from unibound.distributions import discrete
from unibound.support import Constraint, integer_interval, values


@attrs.frozen
class Categorical(Likelihood):
    """Every element is one of 0 .. q - 1, and the network's q outputs are its logits, up to a constant.

    Args:
        num_categories: q.
    """

    num_categories: int = attrs.field(default=3, validator=attrs.validators.ge(2))

    @property
    def support(self) -> Constraint:  # pyright: ignore[reportIncompatibleVariableOverride]
        return integer_interval(0, self.num_categories - 1)

    @classmethod
    def over(cls, wanted: Constraint) -> Self | None:
        listed = values(wanted)
        return cls(len(listed)) if listed is not None and listed[0] == 0 and len(listed) > 1 else None

    def outputs(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*event_shape, self.num_categories)

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        return discrete.Categories(outputs, len(event_shape))


@hookimpl
def register_likelihoods(register):
    register("categorical", Categorical)
