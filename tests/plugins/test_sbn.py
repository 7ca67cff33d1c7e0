"""Sigmoid belief nets: of any depth, bits or reals, under any prior, and exact wherever they can be listed."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from unibound_plugins.models.sbn import SBN

from unibound import Layered, Prior, Run, Upward, UsageError, registries, support
from unibound.runs.build import build
from unibound.settings import sources
from unibound.testing import World, examine_model, expected_bound, expected_gradient
from unibound.testing.listing import all_bits, scatter

PRIORS, LIKELIHOODS, ESTIMATORS = (registries()[kind] for kind in ("prior", "likelihood", "estimator"))
BITS, REALS = LIKELIHOODS["bernoulli"](), LIKELIHOODS["gaussian"]()
DEPTHS = [(3,), (2, 3), (2, 1, 2)]


def prior_of(name: str, size: int) -> Prior:
    torch.manual_seed(size)
    return PRIORS[name]((size,), **({"num_hidden": 2, "num_chains": 4} if name == "rbm" else {}))


def world_of(sizes: tuple[int, ...], name: str) -> World:
    """Two pixels and all latents of a net of bits."""
    joint = SBN(sizes=sizes).build(prior_of(name, sizes[-1]), BITS, BITS, torch.tensor([0.3, 0.8]))
    taus = all_bits((sum(sizes),))
    return World.of(joint, 4, 0.8, all_bits((2,)), taus, torch.zeros(len(taus)), None)


@pytest.fixture
def patterns(tmp_path: Path) -> Path:
    """150 data of 6 bits: noisy copies of two patterns."""
    random = np.random.default_rng(0)
    rows = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 1, 0, 1, 1]])
    arrays = {
        name: (rows[random.integers(2, size=count)] ^ (random.random((count, 6)) < 0.05)).astype(np.uint8)
        for name, count in {"train": 150, "valid": 20, "test": 20}.items()
    }
    path = tmp_path / "patterns.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("units", ["bits", "reals"])
@pytest.mark.parametrize("sizes", [(4,), (5, 3), (4, 2, 3)])
def test_any_depth_sits_the_exam(sizes: tuple[int, ...], units: str) -> None:
    assert [verdict for verdict in examine_model(SBN(sizes=sizes, units=units)) if not verdict.held] == []


@pytest.mark.parametrize("name", ["bernoulli", "rbm"])
@pytest.mark.parametrize("sizes", DEPTHS)
def test_gradients_are_exact_through_every_layer(sizes: tuple[int, ...], name: str) -> None:
    world, vimco = world_of(sizes, name), ESTIMATORS["vimco"](num_particles=2)
    bound = world.bound(2)
    torch.testing.assert_close(expected_bound(world, vimco) - world.log_z(), bound, atol=1e-9, rtol=0)
    got, exact = expected_gradient(world, vimco), world.gradient(bound)
    assert exact.keys() == {"q", "generator", "prior"}
    for group, gradient in exact.items():
        torch.testing.assert_close(got[group], gradient, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ["bernoulli", "rbm"])
@pytest.mark.parametrize("sizes", DEPTHS)
def test_the_divergence_is_that_of_the_listed_world(sizes: tuple[int, ...], name: str) -> None:
    world = world_of(sizes, name)
    found = world.joint.divergence(world.xs, world.log_data, world.taus)
    data = world.log_data.exp()
    assert found.nll == pytest.approx(-(data * world.log_prob()).sum().item(), abs=1e-9)
    assert found.bound == pytest.approx(-(data * world.bound(1)).sum().item(), abs=1e-9)
    assert found.bound > found.nll


def test_it_is_layers_of_linear_maps() -> None:
    torch.manual_seed(0)
    joint = SBN(sizes=(3, 2)).build(prior_of("bernoulli", 2), BITS, BITS, torch.tensor([[0.0, 1.0], [0.25, 0.5]]))
    assert isinstance(joint.q, Upward)
    assert isinstance(joint.p, Layered)
    x, tau = torch.rand(5, 2, 2).round(), torch.rand(7, 5, 5).round()
    low, high = tau[..., :3], tau[..., 3:]
    first, second = joint.q.layers
    up = first.linear((x - torch.tensor([[0.0, 1.0], [0.25, 0.5]])).flatten(1)), second.linear(low)
    down = joint.p.generators[0].linear(low), joint.p.generators[1].linear(high)

    def bits(logits: Tensor, value: Tensor) -> Tensor:
        return torch.distributions.Bernoulli(logits=logits).log_prob(value).sum(-1)

    torch.testing.assert_close(joint.q(x).log_prob(tau), bits(up[0], low) + bits(up[1], high))
    terms = torch.stack([bits(down[0], x.flatten(1).expand(7, 5, 4)), bits(down[1], low), joint.p.prior.log_prob(high)])
    torch.testing.assert_close(joint.p.log_terms(x, tau), terms)
    torch.testing.assert_close(joint.log_weight_terms(x, tau).sum(0), terms.sum(0) - joint.q(x).log_prob(tau))


def test_a_pixel_starts_at_its_rate() -> None:
    joint = SBN(sizes=(3,)).build(prior_of("bernoulli", 3), BITS, BITS, torch.tensor([0.0, 0.3, 1.0]))
    rates = joint.p.generators[0].linear.bias.sigmoid()
    torch.testing.assert_close(rates, torch.tensor([0.01, 0.3, 0.99]))


@pytest.mark.parametrize("sizes", [(2,), (3, 2), (3, 4, 2)])
def test_normals_all_the_way_up_have_a_closed_form(sizes: tuple[int, ...]) -> None:
    """With scales that do not depend on what is above, p(x) is normal: that of the linear maps one after another."""
    joint = SBN(sizes=sizes, units="reals").build(prior_of("gaussian", sizes[-1]), REALS, REALS, torch.zeros(3))
    joint = scatter(joint, 2, scale=0.5)
    shapes = [3, *sizes[:-1]]
    mean, covariance = torch.zeros(sizes[-1]).double(), torch.eye(sizes[-1]).double()
    for generator, size in reversed(list(zip(joint.p.generators, shapes, strict=True))):
        with torch.no_grad():
            generator.linear.weight.view(2, size, -1)[1].zero_()
        weight, bias = generator.linear.weight.view(2, size, -1)[0], generator.linear.bias.view(2, size)[0]
        noise = generator(torch.zeros(generator.linear.in_features).double()).variance
        mean, covariance = weight @ mean + bias, weight @ covariance @ weight.mT + noise.diag()
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double()
    exact = torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)
    torch.manual_seed(1)
    _, tau = joint.p.dream(200_000)  # [N, Z]
    weights = joint.p.conditional(tau.unsqueeze(1)).log_prob(x).exp()  # [N, 4]
    off = (weights.mean(0) - exact.exp()) / (weights.std(0) / len(tau) ** 0.5)
    assert off.abs().max() < 4.75


@pytest.mark.parametrize(
    ("prior", "units", "over"), [("bernoulli", "bits", "bits"), ("rbm", "reals", "bits"), ("gaussian", "bits", "reals")]
)
def test_the_posterior_of_the_top_is_that_of_the_prior(prior: str, units: str, over: str) -> None:
    layer = sources.Layer({"model": {"name": "sbn", "sizes": [4, 2], "units": units}, "prior": prior})
    joint = build(sources.resolve([layer]), torch.rand(5))
    torch.manual_seed(0)
    tau, x = joint.q(torch.zeros(50, 5)).sample(), torch.zeros(50, 5)
    assert support.describe(support.of(joint.q.layers[1](tau[:, :4]))) == over
    assert bool(support.boolean.check(tau[:, :4]).all()) == (units == "bits")
    assert joint.particles(x, 3).log_weights.shape == (3, 50)


@pytest.mark.parametrize(
    ("model", "prior", "estimator"),
    [
        *itertools.product(({"sizes": [4]}, {"sizes": [5, 3]}, {"sizes": [4, 3, 2]}), ("bernoulli", "rbm"), ("vimco",)),
        ({"sizes": [4, 2], "units": "reals"}, "gaussian", "sgvb"),
        ({"sizes": [4, 2]}, "gaussian", "rws"),
    ],
)
def test_it_trains(tmp_path: Path, patterns: Path, model: dict, prior: str, estimator: str) -> None:
    values = {
        "data": str(patterns),
        "model": {"name": "sbn", **model},
        "prior": {"name": prior, **({"num_hidden": 3, "num_chains": 10} if prior == "rbm" else {})},
        "partition": "exact",
        "num_particles": 20,
        "estimator": estimator,
        "epochs": 25,
    }
    run = Run.create(tmp_path / "run", sources.resolve([sources.Layer(values)]))
    before = run.evaluate("train", num_particles=100).nll
    *_, last = run.train()
    after = run.evaluate("train", num_particles=100)
    assert last.done == 25
    assert after.nll < before
    assert math.isfinite(run.finish().nll)


@pytest.mark.parametrize("sizes", [(), (0,), (3, 0), (-1, 2)])
def test_sizes_that_are_none_are_refused_in_one_line(sizes: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="sbn: sizes must be"):
        SBN(sizes=sizes)
    with pytest.raises(UsageError, match="sizes") as refused:
        sources.resolve([sources.Layer({"model": {"name": "sbn", "sizes": list(sizes)}})])
    assert len(str(refused.value).splitlines()) == 1


def test_a_prior_of_another_size_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"latents of shape \[2\], but its prior events of shape \[3\]") as caught:
        SBN(sizes=(4, 2)).build(prior_of("bernoulli", 3), BITS, BITS, torch.zeros(5))
    assert len(str(caught.value).splitlines()) == 1


def test_units_of_another_kind_are_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="units") as caught:
        sources.resolve([sources.Layer({"model": {"name": "sbn", "units": "spins"}})])
    assert len(str(caught.value).splitlines()) == 1
