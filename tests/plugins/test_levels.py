"""Likelihoods of levels: masses of rounded logistics, and mixtures of these over the channels of an image."""

import math

import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.nn.functional import softplus
from unibound_plugins.estimators.sgvb import SGVB
from unibound_plugins.likelihoods.gaussian import Gaussian
from unibound_plugins.likelihoods.levels import DiscretizedLogistic, LogisticMixture
from unibound_plugins.models.resnet import ResNet
from unibound_plugins.priors.gaussian import Gaussian as GaussianPrior

from unibound import UsageError, support
from unibound.runs import pictures
from unibound.testing.listing import all_states

COLORS = (3, 1, 1)


def outputs(likelihood: DiscretizedLogistic | LogisticMixture, event: tuple[int, ...], *lead: int) -> Tensor:
    random = torch.Generator().manual_seed(3)
    return torch.randn(*lead, *likelihood.outputs(event), generator=random, dtype=torch.float64)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_all_colors_sum_to_one(count: int) -> None:
    likelihood = LogisticMixture(levels=count, num_components=3)
    made = likelihood(outputs(likelihood, COLORS, 5), COLORS)
    log_p = made.log_prob(all_states(support.levels(count), COLORS).unsqueeze(1))  # [count^3, 5]
    assert log_p.logsumexp(0).abs().max() < 1e-12


def test_draws_of_colors_have_their_frequencies() -> None:
    torch.manual_seed(0)
    likelihood = LogisticMixture(levels=3, num_components=2)
    made = likelihood(3 * outputs(likelihood, COLORS), COLORS)
    states = all_states(support.levels(3), COLORS)  # [27, 3, 1, 1]
    draws = (made.sample((50_000,)) * 2).round().flatten(1)
    counts = torch.stack([(draws == 2 * state.flatten()).all(1).sum() for state in states])
    expected = made.log_prob(states).exp() * len(draws)
    seen = expected > 10
    assert counts.sum() == len(draws)
    assert scipy.stats.chisquare(counts[seen], expected[seen] * counts[seen].sum() / expected[seen].sum()).pvalue > 1e-6
    with pytest.raises(NotImplementedError, match="no closed form"):
        _ = made.mean


def test_masses_are_those_of_scipy_and_so_is_the_mean() -> None:
    likelihood = DiscretizedLogistic(levels=7)
    out = outputs(likelihood, (2, 3))
    made = likelihood(out, (2, 3))
    location, scale = out[0], likelihood.min_scale + softplus(out[1])
    edges = (2 * torch.arange(1, 7).double() - 1) / 6 - 1
    cdf = torch.from_numpy(scipy.stats.logistic.cdf(((edges.view(-1, 1, 1) - location) / scale).numpy()))
    mass = torch.cat([torch.zeros(1, 2, 3), cdf, torch.ones(1, 2, 3)]).diff(dim=0)  # [7, 2, 3]
    states = torch.linspace(0, 1, 7, dtype=torch.float64).view(-1, 1, 1)
    got = [made.log_prob(states[[k]].expand(1, 2, 3)).item() for k in range(7)]
    assert got == pytest.approx(mass.log().sum((1, 2)).tolist(), abs=1e-10)
    torch.testing.assert_close(made.mean, (mass * states).sum(0))


def test_a_far_tail_is_exact_where_a_difference_of_masses_is_zero() -> None:
    """PixelCNN++ puts a density in the place of what is below 1e-5."""
    likelihood = DiscretizedLogistic(levels=256, min_scale=1e-3)
    made = likelihood(torch.tensor([[-1.0], [-40.0]]), (1,))  # as sharp as may be, about the first level
    near, far = (made.log_prob(torch.tensor([level / 255])) for level in (200, 201))
    assert far - near == pytest.approx(-2 / 255 / 1e-3, rel=1e-3)


def test_one_component_is_chosen_for_all_channels() -> None:
    """With two far components, colors are never mixed, and an independent choice for each channel would mix them."""
    torch.manual_seed(0)
    likelihood = LogisticMixture(levels=2, num_components=2)
    dark, light = [0.0, *[-20.0] * 3, *[0.0] * 3, *[0.0] * 3], [0.0, *[20.0] * 3, *[0.0] * 3, *[0.0] * 3]
    made = likelihood(torch.tensor([*dark, *light]).view(-1, 1, 1), COLORS)
    assert set(made.sample((200,)).sum((1, 2, 3)).tolist()) == {0.0, 3.0}
    assert made.log_prob(torch.ones(COLORS)).item() == pytest.approx(-math.log(2), abs=1e-5)


def test_images_with_channels_last_are_refused() -> None:
    with pytest.raises(UsageError, match="move the channels to the front"):
        LogisticMixture().outputs((32, 32, 3))


def test_a_model_of_color_images_learns_and_is_shown_by_draws_where_it_has_no_mean() -> None:
    torch.manual_seed(0)
    x = torch.zeros(60, 3, 4, 4)
    x[::2, 0], x[1::2, 1] = 1, 1 / 3  # red images, and dark green ones
    likelihood, model = LogisticMixture(levels=4, num_components=2), ResNet(num_latents=2, maps=(4,), hidden=8)
    joint = model.build(GaussianPrior((2,)), likelihood, Gaussian(), x.mean(0))
    optimizer = torch.optim.Adam(joint.parameters(), lr=0.02)
    first = None
    for _ in range(100):
        estimate = SGVB()(joint, x)
        first = estimate.bound.mean().item() if first is None else first
        optimizer.zero_grad()
        estimate.surrogate.mean().backward()
        optimizer.step()
    assert first < -48 * math.log(4) / 2
    assert estimate.bound.mean() > -35  # a bit would do, and the noise of 48 levels costs 66.5
    shown = pictures.reconstructions(joint, x[:4])
    assert torch.equal(shown[::2], x[:4])
    for drawn in (shown[1::2], pictures.samples(joint, 5)):
        assert support.levels(4).check(drawn).all()
