"""Hierarchies of normals: read upwards and down a ladder, by every estimator of reals, and what is refused."""

import pytest
import torch
from torch.distributions import kl_divergence
from unibound_plugins.estimators.iwae import IWAE
from unibound_plugins.estimators.sgvb import SGVB
from unibound_plugins.models.ladder import Ladder
from unibound_plugins.priors.bernoulli import Bernoulli
from unibound_plugins.priors.gaussian import Gaussian

from unibound import JointBound, UsageError, registries
from unibound.distributions.flattening import flatten
from unibound.draws import Chain
from unibound.settings import sources
from unibound.testing import examine_model
from unibound.testing.listing import parameter_groups, scatter

LIKELIHOODS = registries()["likelihood"]
BITS, REALS = LIKELIHOODS["bernoulli"](), LIKELIHOODS["gaussian"]()


def joint_of(reading: str, sizes: tuple[int, ...] = (3, 2)) -> JointBound:
    torch.manual_seed(0)
    model = Ladder(sizes=sizes, hidden=(4,) * len(sizes), reading=reading)
    return scatter(model.build(Gaussian((sizes[-1],)), BITS, REALS, torch.full((5,), 0.4)), 1, 0.4)


@pytest.mark.parametrize("reading", ["upwards", "downwards"])
@pytest.mark.parametrize("sizes", [(3,), (3, 2, 2)])
def test_any_depth_sits_the_exam(sizes: tuple[int, ...], reading: str) -> None:
    model = Ladder(sizes=sizes, hidden=(4,) * len(sizes), reading=reading)
    assert [verdict for verdict in examine_model(model) if not verdict.held] == []


def test_down_a_ladder_every_layer_costs_a_divergence() -> None:
    """Its mean term is minus the divergence of two normals given the layer above, so never above zero."""
    joint, x = joint_of("downwards"), torch.rand(6, 5).round().double()
    made = joint.q(x)
    assert isinstance(made, Chain)
    torch.manual_seed(1)
    tau = made.sample((4000,))
    low, top = made.rest[0]([tau[..., 3:]]), made.first
    exact = kl_divergence(low, joint.p.generators[1](tau[..., 3:])).mean(0)
    drawn = joint.log_weight_terms(x, tau)  # [3, K, B]
    off = (drawn[1].mean(0) + exact) / drawn[1].std(0) * len(tau) ** 0.5
    assert off.abs().max() < 5
    prior = joint.p.prior.distribution()
    off = (drawn[2].mean(0) + kl_divergence(top, prior)) / drawn[2].std(0) * len(tau) ** 0.5
    assert off.abs().max() < 5


@pytest.mark.parametrize("reading", ["upwards", "downwards"])
def test_gradients_without_the_score_are_of_the_same_bound(reading: str) -> None:
    """dreg agrees with the total derivative on average, for q and p, although q shares layers of p down a ladder."""
    joint, x = joint_of(reading), torch.rand(2, 5).round().double()
    groups = parameter_groups(joint.parts())

    def slopes(estimator: object) -> dict[str, torch.Tensor]:
        value = estimator(joint, x.repeat(500, 1)).surrogate.mean()
        return {
            name: torch.cat([slope.flatten() for slope in torch.autograd.grad(value, group, retain_graph=True)])
            for name, group in groups.items()
        }

    torch.manual_seed(0)
    one, other = (
        [slopes(IWAE(num_particles=3, gradient=gradient)) for _ in range(30)] for gradient in ("standard", "dreg")
    )
    for name in groups:
        first, second = (torch.stack([slope[name] for slope in found]) for found in (one, other))
        error = (first.var(0) + second.var(0)).div(30).sqrt() + 1e-12
        assert ((first.mean(0) - second.mean(0)) / error).abs().max() < 6


@pytest.mark.parametrize("estimator", [SGVB(), IWAE(num_particles=4), IWAE(num_particles=4, gradient="stl")])
@pytest.mark.parametrize("reading", ["upwards", "downwards"])
def test_the_bound_is_that_of_its_log_weights(reading: str, estimator: object) -> None:
    joint, x = joint_of(reading), torch.rand(6, 5).round().double()
    estimate = estimator(joint, x)
    log_w = estimate.log_weights
    torch.testing.assert_close(estimate.bound, log_w.exp().mean(0).log() if len(log_w) > 1 else log_w.mean(0))


def test_widths_that_do_not_fit_are_refused_in_one_line() -> None:
    for values in ({"sizes": [4, 2], "hidden": [8]}, {"sizes": [4], "hidden": [8, 8]}):
        with pytest.raises(UsageError, match="give one for each of sizes") as caught:
            sources.resolve([sources.Layer({"model": {"name": "ladder", **values}})])
        assert len(str(caught.value).splitlines()) == 1


def test_a_prior_of_bits_on_top_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"ladder has latents over reals.*use gaussian") as caught:
        Ladder(sizes=(3, 2), hidden=(4, 4)).build(Bernoulli((2,)), BITS, BITS, torch.full((5,), 0.4))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("sizes", [(3, 2), (2, 2)])
def test_a_ladder_that_is_flattened_is_still_drawn_from_the_top(sizes: tuple[int, ...]) -> None:
    """Pieces of one size would be taken for each other, and nothing would complain."""
    joint, x = joint_of("downwards", sizes), torch.rand(6, 5).round().double()
    made = joint.q(x)
    same = flatten(made, 1.0)
    assert isinstance(same, Chain)
    tau = made.sample((4,))
    torch.testing.assert_close(same.log_prob(tau), made.log_prob(tau))
