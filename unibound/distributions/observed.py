"""The distribution of what was observed: the elements that are missing are summed, or integrated, out."""

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent
from torch.types import _size

from unibound import support
from unibound.errors import UsageError
from unibound.support import Constraint


class Observed(Distribution):
    """Another distribution, of events some of whose elements are missing, which NaN stands for.

        log p(x_observed) = sum over the observed elements i of log p_i(x_i)

    which is the marginal where elements are independent. Draws are whole.

    Args:
        base: batch shape [...], event shape [*X]. It is asked for the log-probability of each element by its method
            `elements(value)`, [..., *X] to [..., *X] nats, unless it is an `Independent` of torch.

    Raises:
        UsageError: one whose elements are not independent, or that cannot be asked.
    """

    arg_constraints = {}  # noqa: RUF012 - the name torch.distributions looks up  # pyright: ignore

    def __init__(self, base: Distribution) -> None:
        self.base = base
        independent = isinstance(base, Independent) and base.reinterpreted_batch_ndims == len(base.event_shape)
        if not (independent or hasattr(base, "elements")):
            raise UsageError(
                f"elements of {type(base).__name__} are not independent given tau, or cannot be asked one by one, so "
                "none may be missing; choose a model and a likelihood whose elements are"
            )
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> Constraint | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        found = support.of(self.base)
        return None if found is None else support.partly(found)

    @property
    def mean(self) -> Tensor:
        return self.base.mean

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.base.has_rsample

    def sample(self, sample_shape: _size = ()) -> Tensor:
        return self.base.sample(torch.Size(sample_shape))

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        return self.base.rsample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p of what was observed [...] in nats; value [..., *X] broadcasts against the batch."""
        seen = ~value.isnan()
        # What stands in for a missing element is one of its values, so that no gradient of what is left out is NaN.
        listed = support.values(support.of(self.base))
        filled = torch.where(seen, value, 0.0 if listed is None else listed[0])
        found = self._elements(filled)
        return torch.where(seen, found, 0.0).flatten(-len(self.event_shape)).sum(-1)

    def _elements(self, value: Tensor) -> Tensor:
        if isinstance(self.base, Independent):
            return self.base.base_dist.log_prob(value)
        return self.base.elements(value)  # pyright: ignore[reportAttributeAccessIssue]
