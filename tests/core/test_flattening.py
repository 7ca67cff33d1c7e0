"""A flattened distribution is the same one, less sure: of the same shapes, normalized, and wider."""

import math

import pytest
import torch
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    Laplace,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
    TransformedDistribution,
)
from torch.distributions.transforms import AffineTransform

from unibound.distributions import Bits, Logistic, PointMass
from unibound.distributions.flattening import flatten
from unibound.draws import Chain, draw


def normal(scale: float = 0.5) -> Distribution:
    return Independent(Normal(torch.tensor([[1.0, -1.0]]).expand(3, 2), scale), 1)


def bits(scale: float = 6.0) -> Bits:
    return Bits(scale * torch.tensor([[1.0, -1.0]]).expand(3, 2))


MADE = {
    "bits": bits,
    "normal": normal,
    "laplace": lambda: Independent(Laplace(torch.zeros(3, 2), 1.0), 1),
    "logistic": lambda: Independent(Logistic(torch.zeros(3, 2), torch.ones(1)), 1),
    "student": lambda: Independent(StudentT(9.0, torch.zeros(3, 2), 1.0), 1),
    "correlated": lambda: MultivariateNormal(torch.zeros(3, 2), torch.eye(2)),
    "categories": lambda: Independent(Categorical(logits=torch.tensor([0.0, 2.0, 4.0]).expand(3, 2, 3)), 1),
    "mixture": lambda: MixtureSameFamily(Categorical(logits=torch.zeros(3, 2)), Normal(torch.zeros(3, 2), 1.0)),
    "transformed": lambda: Independent(
        TransformedDistribution(Normal(torch.zeros(3, 2), 1.0), AffineTransform(2, 3)), 1
    ),
    "chain": lambda: Chain(normal(), [lambda pieces: Bits(6 * torch.ones_like(pieces[0]))], (2, 2)),
}


@pytest.mark.parametrize("name", MADE)
def test_it_has_the_same_shapes_and_more_entropy(name: str) -> None:
    made = MADE[name]()
    flat = flatten(made, 4.0)
    assert flat is not None
    assert (flat.batch_shape, flat.event_shape) == (made.batch_shape, made.event_shape)
    (tau, log_q), (wide, log_flat) = draw(made, 4000), draw(flat, 4000)
    assert -log_flat.mean() > -log_q.mean() + 0.3  # entropies
    assert (made.log_prob(wide) - log_flat).exp().mean() == pytest.approx(1.0, abs=0.15)  # normalized
    assert flatten(made, 1.0).log_prob(tau) == pytest.approx(log_q, abs=1e-5)


def test_what_is_not_known_is_not_flattened() -> None:
    counts = Independent(torch.distributions.Poisson(torch.ones(3, 2)), 1)
    assert flatten(counts, 4.0) is None
    assert flatten(Chain(normal(), [lambda pieces: counts], (2, 2)), 4.0) is None


def test_a_point_mass_stays_and_the_rest_of_its_chain_is_flattened() -> None:
    point = PointMass(torch.ones(3, 2))
    assert flatten(point, 4.0) is point
    flat = flatten(Chain(point, [lambda pieces: Bits(torch.full((3, 2), 8.0))], (2, 2)), 4.0)
    assert flat is not None
    assert flat.log_prob(torch.ones(3, 4)) == pytest.approx(torch.full((3,), -2 * math.log1p(math.exp(-2))))


def test_one_of_ones_own_is_made_known() -> None:
    class Mine(Normal):
        """A normal by another name: what is registered for its kind would make it a plain one."""

    @flatten.register
    def _(made: Mine, factor: float) -> Distribution | None:
        return Mine(made.loc, made.scale + factor)

    assert flatten(Mine(0.0, 1.0), 4.0).scale == 5.0
