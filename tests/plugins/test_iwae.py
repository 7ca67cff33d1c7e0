"""IWAE against quadrature: the ladder of bounds, the three gradients of q, and the view as one draw."""

import attrs
import pytest
import torch
from torch.distributions import Independent, Normal
from unibound_plugins.estimators.iwae import IWAE
from unibound_plugins.likelihoods.bernoulli import Bernoulli as Bits
from unibound_plugins.models.mlp import MLP
from unibound_plugins.priors.bernoulli import Bernoulli

from unibound import Inference, JointBound, UsageError
from unibound.testing import World
from unibound.testing.listing import gradients, tuples
from unibound.weights import log_mean_exp, resampled

TOLERANCE = 1e-9


class Scripted(Normal):
    """A normal whose draws are as written."""

    def __init__(self, normal, noise):
        super().__init__(normal.loc, normal.scale)
        self.noise = noise

    def rsample(self, sample_shape=()):
        return self.loc + self.scale * self.noise


class ScriptedInference(Inference):
    def __init__(self, q, noise):
        super().__init__()
        self.q, self.noise = q, noise

    def forward(self, x):
        return Independent(Scripted(self.q(x).base_dist, self.noise), 1)


@attrs.frozen(eq=False)
class Listing:
    """Every K-tuple of quadrature nodes for every datum, as one batch: rows [B]."""

    world: World
    datum: torch.Tensor
    joint: JointBound
    probability: torch.Tensor

    @classmethod
    def of(cls, world, k, num_nodes):
        nodes = torch.linspace(-8, 8, num_nodes, dtype=torch.float64)
        weights = (-nodes.square() / 2).softmax(0)
        pick = tuples(num_nodes, k).repeat(len(world.xs), 1)  # [B, K]
        datum = torch.arange(len(world.xs)).repeat_interleave(num_nodes**k)
        q = ScriptedInference(world.joint.q, nodes[pick].T.unsqueeze(-1))  # [K, B, 1]
        return cls(world, datum, JointBound(q, world.joint.p), weights[pick].prod(1))

    def run(self, estimator):
        return estimator(self.joint, self.world.xs[self.datum])

    def mean(self, values):
        return torch.zeros_like(self.world.log_data).index_add(0, self.datum, self.probability * values)

    def gradient(self, estimator):
        """Exact expected direction of ascent by group."""
        loss = (self.world.log_data.exp() * self.mean(self.run(estimator).surrogate)).sum()
        return gradients(-loss, self.world.groups())


@pytest.fixture(scope="module")
def world():
    return World.of_reals(6)


def test_the_ladder_of_bounds(world):
    ladder = [Listing.of(world, k, 20) for k in (1, 2, 3)]
    bounds = [listing.mean(listing.run(IWAE(num_particles=k)).bound) for k, listing in enumerate(ladder, 1)]
    rungs = torch.stack([*bounds, world.log_prob().detach()])  # [4, N]
    assert (rungs.diff(dim=0) > 1e-4).all()


@pytest.mark.parametrize("gradient", ["standard", "stl", "dreg"])
def test_the_bound_does_not_depend_on_the_gradient(world, gradient):
    listing = Listing.of(world, 2, 40)
    bound = listing.mean(listing.run(IWAE(num_particles=2, gradient=gradient)).bound)
    torch.testing.assert_close(bound, World.of_reals(6, num_nodes=40).bound(2).detach(), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("gradient", ["standard", "dreg"])
def test_expected_gradient_is_that_of_the_bound(gradient):
    # Doubly reparameterized, it is exact up to an integration by parts, so the quadrature has to be fine.
    world = World.of_reals(6, num_nodes=100)
    estimator = IWAE(num_particles=2, gradient=gradient)
    got, exact = Listing.of(world, 2, 100).gradient(estimator), world.gradient(world.bound(2))
    assert estimator.unbiased == exact.keys() == {"q", "generator", "prior"}
    for group, expected in exact.items():
        torch.testing.assert_close(got[group], expected, rtol=0, atol=TOLERANCE)


def bias_of_stl(world, k, num_nodes):
    """How far its expected gradient is off, by group, relative to the exact one."""
    listing = Listing.of(world, k, num_nodes)
    got, exact = (listing.gradient(IWAE(num_particles=k, gradient=gradient)) for gradient in ("stl", "standard"))
    return {group: ((got[group] - exact[group]).norm() / exact[group].norm()).item() for group in exact}


def test_stl_is_unbiased_with_one_particle(world):
    assert max(bias_of_stl(world, 1, 100).values()) < TOLERANCE
    assert "q" in IWAE(num_particles=1, gradient="stl").unbiased


def test_stl_is_biased_for_q_with_two(world):
    bias = bias_of_stl(world, 2, 60)
    assert bias.pop("q") > 0.01
    assert max(bias.values()) < TOLERANCE
    assert "q" not in IWAE(num_particles=2, gradient="stl").unbiased


def test_without_the_score_there_is_no_noise_at_the_posterior():
    """Where q is the posterior, every path has the same weight, and only the score is random."""
    world = World.of_reals(3)
    slope, offset = world.p.generator.mean.weight.squeeze(1), world.p.generator.mean.bias
    prior, scale = world.p.prior.distribution().base_dist, (-2 * world.p.generator.log_scale).exp()
    precision = prior.scale**-2 + (slope.square() * scale).sum()
    with torch.no_grad():
        world.joint.q.mean.weight.copy_((slope * scale / precision).unsqueeze(0))
        world.joint.q.mean.bias.copy_((prior.loc * prior.scale**-2 - (offset * slope * scale).sum()) / precision)
        world.joint.q.log_scale.copy_(-precision.log() / 2)
    noise = {}
    for gradient in ("standard", "stl", "dreg"):
        surrogate = Listing.of(world, 2, 3).run(IWAE(num_particles=2, gradient=gradient)).surrogate
        rows = torch.stack([gradients(row, {"q": world.groups()["q"]})["q"] for row in surrogate])
        noise[gradient] = rows.abs().max()
    assert noise["standard"] > 0.01
    assert max(noise["stl"], noise["dreg"]) < 1e-12


def test_a_frozen_q_can_be_passed_by(world):
    joint = JointBound(world.joint.q, world.joint.p)
    joint.q.requires_grad_(False)
    try:
        estimate = IWAE(gradient="dreg")(joint, world.xs)
    finally:
        joint.q.requires_grad_(True)
    assert estimate.surrogate.requires_grad


def test_dreg_with_dropout_scores_the_distribution_it_drew_from():
    torch.manual_seed(0)
    from unibound_plugins.likelihoods.gaussian import Gaussian as Normals
    from unibound_plugins.priors.gaussian import Gaussian

    model = MLP(num_latents=2, hidden=(50,), dropout=0.5)
    joint = model.build(Gaussian((2,)), Normals(), Normals(), torch.zeros(4)).train()
    x = torch.randn(7, 4)
    values = []
    for path_only in (False, True):
        torch.manual_seed(1)
        values.append(joint.particles(x, 3, reparameterized=True, path_only=path_only).log_weights)
    torch.testing.assert_close(*values)


def test_seen_as_one_draw_every_particle_gives_the_bound():
    log_w = torch.randn(5, 7, dtype=torch.float64) * 30 - 800
    log_index, log_ratio = resampled(log_w)
    torch.testing.assert_close(log_index.logsumexp(0), torch.zeros(7).double(), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(log_ratio, log_mean_exp(log_w).expand(5, 7), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_bound_is_below_the_elbo_of_the_resampled_posterior(k):
    """L_K <= ELBO(q_p^K) <= log p, with q_p^K by listing every other K - 1 particles."""
    world = World.of_bits(4)
    joint, tau = world.joint, world.taus.unsqueeze(1).expand(-1, len(world.xs), -1)  # [S, N, 2]
    with torch.no_grad():
        log_q = joint.q(world.xs).log_prob(tau)  # [S, N]
        log_p = world.log_joint(tau)
        log_rho = log_p - log_q
        index = tuples(len(log_q), k - 1).T  # [K - 1, S^(K - 1)]
        others, chance = log_rho[index], log_q[index].sum(0)  # [K - 1, R, N], [R, N]
        own = log_rho.unsqueeze(1).expand(-1, *chance.shape)  # [S, R, N]
        every = torch.cat([own.unsqueeze(0), others.unsqueeze(1).expand(-1, *own.shape)])  # [K, S, R, N]
        log_qk = (chance + log_p.unsqueeze(1) - log_mean_exp(every)).logsumexp(1)  # [S, N]
        elbo = (log_qk.exp() * (log_p - log_qk)).sum(0)
        bound, log_prob = world.bound(k), world.log_prob()
    torch.testing.assert_close(log_qk.logsumexp(0), torch.zeros(len(world.xs)).double(), rtol=0, atol=TOLERANCE)
    assert (bound < elbo).all()
    assert (elbo < log_prob).all()


def test_refuses_bits():
    joint = MLP(num_latents=3, hidden=(4,)).build(Bernoulli((3,)), Bits(), Bits(), torch.rand(2, 2))
    with pytest.raises(UsageError, match=r"iwae needs reparameterized samples.*Bits; use vimco"):
        IWAE().check(joint, torch.rand(2, 2, 2))
