"""The exam integrates any density over the reals, kinks, jumps and narrow peaks too, and misses no normalizer."""

import math

import attrs
import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Laplace, MixtureSameFamily, Normal, StudentT, Uniform
from torch.nn.functional import softplus

from unibound import Likelihood, registries
from unibound.support import real, same
from unibound.testing import examine_likelihood
from unibound.testing.laws.likelihood import Subject, integral
from unibound.testing.worlds import World

DENSITIES = [name for name, cls in registries()["likelihood"].items() if same(cls.support, real)]


@pytest.mark.parametrize("name", DENSITIES)
def test_every_density_there_is_integrates_to_one_under_any_seed(name: str) -> None:
    subject = Subject.of(registries()["likelihood"][name])
    for seed in range(10):
        torch.manual_seed(seed)
        assert integral(subject.made(4, event=(1,))).log().abs().max() < 1e-7


SCALES = torch.tensor([1.0, 1e-2, 1e-4, 1e-6], dtype=torch.float64).unsqueeze(1)
PLACES = torch.tensor([0.3, -1.7, 2.5, -0.01], dtype=torch.float64).unsqueeze(1)


@pytest.mark.parametrize(
    "made",
    [
        lambda: Laplace(PLACES, SCALES),
        lambda: Normal(1000 * PLACES, SCALES),
        lambda: Uniform(PLACES, PLACES + SCALES, validate_args=False),
        lambda: StudentT(torch.full_like(PLACES, 1.5), PLACES, SCALES),
    ],
    ids=["kinks", "peaks far out", "jumps", "heavy tails"],
)
def test_kinks_jumps_and_peaks_are_resolved_however_narrow(made: type) -> None:
    torch.manual_seed(0)
    assert integral(Independent(made(), 1, validate_args=False)).log().abs().max() < 1e-7


def test_a_peak_beside_a_broad_hill_is_not_missed() -> None:
    torch.manual_seed(0)
    parts = Normal(torch.tensor([[0.0, 1.2345]], dtype=torch.float64).expand(4, 2), torch.tensor([3.0, 1e-3]).double())
    weights = torch.distributions.Categorical(torch.tensor([0.9, 0.1]).double().expand(4, 2))
    mixture = MixtureSameFamily(weights, parts)
    made = Independent(mixture.expand(torch.Size([4])), 0)
    unit = torch.distributions.TransformedDistribution(made, torch.distributions.transforms.ReshapeTransform((), (1,)))
    assert integral(unit).log().abs().max() < 1e-7


class Off(Laplace):
    """Whose density is a little too large."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) + 1e-5


@attrs.frozen
class Unnormalized(Likelihood):
    """A peak with a kink, and a normalizer that is off by 1e-5."""

    support = real

    def outputs(self, event_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2, *event_shape)

    def __call__(self, outputs: Tensor, event_shape: tuple[int, ...]) -> Distribution:
        location, raw = outputs.unbind(-len(event_shape) - 1)
        made = Off(location, 1e-3 + softplus(raw), validate_args=False)
        return Independent(made, len(event_shape), validate_args=False)


def test_a_normalizer_that_is_hardly_off_is_seen() -> None:
    assert "sums_to_one" in {verdict.law for verdict in examine_likelihood(Unnormalized) if not verdict.held}
    for seed in range(5):
        torch.manual_seed(seed)
        off = integral(Subject.of(Unnormalized).made(4, event=(1,))).log()
        assert torch.allclose(off, torch.full_like(off, 1e-5), rtol=0, atol=1e-7)


def test_reals_are_weighed_in_full_precision() -> None:
    measure = World.of_reals().log_measure
    assert torch.equal(measure, torch.full_like(measure, math.log(0.01)))
    assert measure.dtype == torch.float64
