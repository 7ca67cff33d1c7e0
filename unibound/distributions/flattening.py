"""Flattened distributions: the same ones, less sure of themselves."""

from collections.abc import Callable
from functools import singledispatch

from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Cauchy,
    Distribution,
    Gumbel,
    Independent,
    Laplace,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    StudentT,
    TransformedDistribution,
)

from unibound.distributions import Bits, Logistic, PointMass
from unibound.distributions.flows import Flow
from unibound.draws import Chain

Make = Callable[[list[Tensor]], Distribution]


@singledispatch
def flatten(made: Distribution, factor: float) -> Distribution | None:
    """The same distribution with less certainty; None where it is not known how.

    Logits are divided by the factor, scales multiplied by it; a chain is flattened piece by piece. An event that is
    possible stays possible, so that draws of it, weighed by both, show where the first one was over-sure.

    A distribution of one's own is made known by `flatten.register`, as `torch.distributions.kl.register_kl` has it.

    Args:
        made: of any batch shape and event shape, which are kept.
        factor: how much less certain, above 1.
    """
    del made, factor
    return None


@flatten.register
def _(made: Bits, factor: float) -> Distribution | None:
    return Bits(made.logits / factor, len(made.event_shape))


@flatten.register
def _(made: PointMass, factor: float) -> Distribution | None:
    del factor  # there is nothing to be less sure of, and the rest of a chain may be
    return made


@flatten.register
def _(made: Logistic, factor: float) -> Distribution | None:
    return Logistic(made.location, made.scale * factor)


@flatten.register(Normal)
@flatten.register(Laplace)
@flatten.register(Cauchy)
@flatten.register(Gumbel)
def _(made: Normal, factor: float) -> Distribution | None:
    return type(made)(made.loc, made.scale * factor, validate_args=False)


@flatten.register
def _(made: StudentT, factor: float) -> Distribution | None:
    return StudentT(made.df, made.loc, made.scale * factor, validate_args=False)


@flatten.register
def _(made: MultivariateNormal, factor: float) -> Distribution | None:
    return MultivariateNormal(made.loc, scale_tril=made.scale_tril * factor, validate_args=False)


@flatten.register(Bernoulli)
@flatten.register(Categorical)
@flatten.register(OneHotCategorical)
def _(made: Categorical, factor: float) -> Distribution | None:
    return type(made)(logits=made.logits / factor, validate_args=False)


@flatten.register
def _(made: Independent, factor: float) -> Distribution | None:
    base = flatten(made.base_dist, factor)
    return None if base is None else Independent(base, made.reinterpreted_batch_ndims, validate_args=False)


@flatten.register
def _(made: MixtureSameFamily, factor: float) -> Distribution | None:
    pieces = flatten(made.component_distribution, factor)
    mixture = flatten(made.mixture_distribution, factor)
    if pieces is None or not isinstance(mixture, Categorical):
        return None
    return MixtureSameFamily(mixture, pieces, validate_args=False)


@flatten.register
def _(made: TransformedDistribution, factor: float) -> Distribution | None:
    base = flatten(made.base_dist, factor)
    return None if base is None else TransformedDistribution(base, made.transforms, validate_args=False)


@flatten.register
def _(made: Flow, factor: float) -> Distribution | None:
    base = flatten(made.base, factor)
    return None if base is None else Flow(base, made.transforms)


@flatten.register
def _(made: Chain, factor: float) -> Distribution | None:
    first = flatten(made.first, factor)
    if first is None or any(flatten(piece, factor) is None for piece in made.layers()):
        return None

    def flat(make: Make) -> Make:
        def flattened(pieces: list[Tensor]) -> Distribution:
            piece = flatten(make(pieces), factor)
            assert piece is not None
            return piece

        return flattened

    return Chain(first, [flat(make) for make in made.rest], made.sizes, downward=made.downward)
