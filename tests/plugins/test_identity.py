"""A prior as a model of the data: its likelihood is the model's, whatever the number of particles."""

import math

import pytest
import torch
from unibound_plugins.models.identity import Identity
from unibound_plugins.partition.exact import Exact
from unibound_plugins.priors.gaussian import Gaussian
from unibound_plugins.priors.rbm import RBM

from unibound import UsageError, registries
from unibound.distributions import PointMass
from unibound.evaluation.evaluate import evaluate, normalize
from unibound.runs.pictures import reconstructions, samples
from unibound.testing.listing import all_bits, scatter

LIKELIHOODS = registries()["likelihood"]
BITS, REALS = LIKELIHOODS["bernoulli"](), LIKELIHOODS["gaussian"]()


def machine(shape=(2, 2)):
    prior = scatter(RBM(shape, num_hidden=3), seed=1)
    return Identity().build(prior, BITS, BITS, torch.zeros(shape)).double()


@pytest.mark.parametrize("num_particles", [1, 7])
def test_its_nll_is_that_of_the_rbm(num_particles):
    joint, x = machine(), all_bits((2, 2))
    normalized = normalize(joint, Exact(), x)
    result = evaluate(joint, x[3:9], num_particles=num_particles, normalized=normalized)
    free = joint.p.prior.free_energy(x)
    exact = (free + (-free).logsumexp(0))[3:9].mean().item()
    assert result.nll == pytest.approx(exact, abs=1e-9)
    assert result.ess == pytest.approx(num_particles)
    assert (result.side, result.gap) == ("equal", 0.0)
    assert result.interval.two_sided
    assert result.interval.given == ()


def test_every_particle_has_the_weight_of_the_datum():
    joint, x = machine(), all_bits((2, 2))
    particles = joint.particles(x, 3)
    assert torch.equal(particles.tau, x.expand(3, -1, -1, -1))
    assert torch.equal(particles.log_weights, joint.p.prior.log_prob(x).expand(3, -1))


def test_pictures_are_of_the_chains_and_of_the_data():
    joint, x = machine(), all_bits((2, 2))
    assert set(samples(joint, 20).unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(reconstructions(joint, x)[1::2], x)


def test_a_prior_over_reals_models_reals():
    joint = Identity().build(Gaussian((2,)), REALS, REALS, torch.zeros(2))
    x = torch.tensor([[0.3, -1.2]])
    result = evaluate(joint, x, num_particles=1)
    assert result.nll == pytest.approx((0.09 + 1.44) / 2 + math.log(2 * math.pi), abs=1e-6)


def test_grey_levels_are_refused_by_a_prior_over_bits():
    with pytest.raises(UsageError, match=r"identity.*hold 0\.25; binarize"):
        machine().q(torch.full((1, 2, 2), 0.25))


def test_point_mass():
    value = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    point = PointMass(value)
    assert (point.batch_shape, point.event_shape) == ((2,), (2,))
    assert torch.equal(point.sample((3,)), value.expand(3, 2, 2))
    assert point.log_prob(torch.stack([value, value.flip(0)])).tolist() == [[0.0, 0.0], [-math.inf, -math.inf]]
    assert torch.equal(point.mean, value)
    assert torch.equal(point.entropy(), torch.zeros(2))
    moved = value.clone().requires_grad_()
    assert PointMass(moved).rsample().requires_grad
    assert not PointMass(moved).sample().requires_grad
