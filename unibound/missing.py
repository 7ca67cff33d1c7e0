"""Data some of whose elements are missing: p is asked for what was observed, and q sees the mean for the rest.

Shapes: *X one datum. NaN stands for what is missing.
"""

import attrs
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.utils.hooks import RemovableHandle

from unibound.distributions.observed import Observed
from unibound.errors import UsageError
from unibound.generation import Directed, Generation, Layered
from unibound.networks import Inference, Upward


def observe(q: Inference, p: Generation, x_mean: Tensor) -> list[RemovableHandle]:
    """Have q and p take data with missing elements, as if they had been made so.

    From then on p(x | tau) is that of the observed elements, and q(tau | x) sees in the place of the others the mean of
    the training data: whatever q is, the bound is one of the likelihood of what was observed. Complete data are to
    both what they were.

    Args:
        q: the inference network.
        p: a directed model, whose elements are independent given tau.
        x_mean: what q sees [*X].

    Returns:
        What takes this back, each by its `remove()`.

    Raises:
        UsageError: a p that is not made of a p(x | tau) alone; as it is used, one whose elements depend on each other.

    Source: P.-A. Mattei and J. Frellsen, "MIWAE: deep generative modelling and imputation of incomplete data sets"
        (2019), https://arxiv.org/abs/1812.02633
    """
    if isinstance(p, Directed):
        generator: nn.Module = p.generator
    elif isinstance(p, Layered):
        generator = p.generators[0]
    else:
        raise UsageError(
            f"{type(p).__name__} does not say how likely some elements of a datum are without the others, so none may "
            "be missing; choose a model whose elements are independent given tau"
        )
    first = q.layers[:1] if isinstance(q, Upward) else ()  # which whoever trains layer by layer calls by itself
    seeing = [network.register_forward_pre_hook(Fill(x_mean)) for network in (q, *first)]
    return [*seeing, generator.register_forward_hook(_observed)]


@attrs.frozen(eq=False)
class Fill:
    """Puts the mean in the place of what is missing, before a network sees it."""

    x_mean: Tensor

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *rest = inputs
        return (torch.where(x.isnan(), self.x_mean.to(x), x), *rest)


def _observed(module: nn.Module, inputs: object, made: Distribution) -> Distribution:
    return made if isinstance(made, Observed) else Observed(made)
