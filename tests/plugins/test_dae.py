"""Denoising autoencoders on data of three bits, every corruption of them listed."""

import math

import pytest
import torch
from torch import nn
from unibound_plugins.estimators.dae import DAE, leave_one_out, walkback
from unibound_plugins.models.denoising import Corruption, Denoiser, Denoising
from unibound_plugins.models.identity import Identity
from unibound_plugins.priors.convolved import Convolved
from unibound_plugins.priors.rbm import RBM

from unibound import Directed, Inference, JointBound, UsageError, registries
from unibound.distributions import Bits, pairwise_log_prob
from unibound.testing import World, expected_bound, expected_gradient
from unibound.testing.listing import all_bits, gradients, parameter_groups, scatter
from unibound.testing.verdict import FALSE_ALARM

TOLERANCE = 1e-9
LIKELIHOODS = registries()["likelihood"]
BITS, REALS = LIKELIHOODS["bernoulli"](), LIKELIHOODS["gaussian"]()
FIXED = ["masking", "salt_and_pepper"]
STATES = all_bits((3,))
DATA = STATES[torch.tensor([1, 1, 1, 4, 6, 6, 7, 2])]  # some of them twice


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=0, atol=TOLERANCE)


class Learned(Inference):
    """q(tau | x) with parameters."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))

    def forward(self, x):
        return Bits(self.network(x))


def corrupted(kind):
    """A joint of one of the corruptions, or of a q that learns."""
    q: Inference = Learned() if kind == "learned" else Corruption(kind, 0.35, 1)
    joint = scatter(JointBound(q, Directed(Convolved((3,)), Denoiser((5,), BITS, torch.Size((3,))))), seed=2)
    joint.p.bind(joint.q, DATA)
    return joint


def world(kind):
    """The data as a world: each state once, with its frequency."""
    xs, counts = DATA.unique(dim=0, return_counts=True)
    log_data = (counts.double() / len(DATA)).log()
    return World(corrupted(kind), xs, log_data, STATES, torch.zeros(8).double(), num_nodes=None)


def terms(joint):
    """R and I over the data set, every corruption listed."""
    log_q = joint.q(DATA).log_prob(STATES.unsqueeze(1))  # [8, N]
    q = log_q.exp() / len(DATA)
    log_p = joint.p.conditional(STATES.unsqueeze(1)).log_prob(DATA)
    return -(q * log_p).sum(), (q * (log_q - q.sum(1, keepdim=True).log())).sum()


@pytest.mark.parametrize("kind", [*FIXED, "learned"])
def test_kl_is_r_plus_i_minus_h(kind):
    here = world(kind)
    reconstruction, information = terms(here.joint)
    exact = here.joint.divergence(here.xs, here.log_data, here.taus)
    entropy = -(here.log_data.exp() * here.log_data).sum().item()
    assert exact.kl == pytest.approx((reconstruction + information).item() - entropy, abs=TOLERANCE)
    assert exact.bound == pytest.approx((reconstruction + information).item(), abs=TOLERANCE)
    assert 0 <= exact.kl <= reconstruction
    assert exact.bound >= exact.nll


@pytest.mark.parametrize("num_particles", [1, 2])
@pytest.mark.parametrize("kind", [*FIXED, "learned"])
def test_exact_bound_is_r_plus_i_and_so_is_its_gradient(kind, num_particles):
    here, estimator = world(kind), DAE(num_particles=num_particles, information="exact")
    value = sum(terms(here.joint))
    close(-(here.log_data.exp() * expected_bound(here, estimator)).sum(), value.detach())
    exact = gradients(-value, here.groups())
    got = expected_gradient(here, estimator)
    assert got.keys() == exact.keys()
    assert ("q" in got) is (kind == "learned")
    for group, gradient in exact.items():
        close(got[group], gradient)


@pytest.mark.parametrize("num_particles", [1, 2])
@pytest.mark.parametrize("kind", [*FIXED, "learned"])
def test_reconstruction_has_the_gradient_of_r(kind, num_particles):
    here, estimator = world(kind), DAE(num_particles=num_particles)
    exact = gradients(-terms(here.joint)[0], here.groups())
    for group, gradient in expected_gradient(here, estimator).items():
        close(gradient, exact[group])
    estimate = estimator(here.joint, here.xs)
    assert (estimate.bound, estimate.log_weights, estimate.side) == (None, None, "none")


def test_what_reconstruction_leaves_out_is_the_gradient_of_the_information():
    joint = corrupted("learned")
    reconstruction, information = terms(joint)
    groups = parameter_groups(joint.parts())
    close(gradients(information, groups)["generator"], torch.zeros(38).double())
    left_out, kept = gradients(information, groups)["q"].norm(), gradients(reconstruction, groups)["q"].norm()
    assert left_out > 0.1 * kept


@pytest.mark.parametrize("kind", [*FIXED, "learned"])
@pytest.mark.parametrize("batch", [2, 3, 4])
def test_leave_one_out_below_exact_below_self_including(kind, batch):
    joint = corrupted(kind)
    index = torch.cartesian_prod(*[torch.arange(len(DATA))] * batch)  # every batch drawn with replacement [N^M, M]
    log_q = joint.q(DATA).log_prob(STATES.unsqueeze(1))  # [8, N]
    made = log_q[:, index[:, 0]].exp() / len(index)  # of tau and its batch, made from the batch's first datum [8, N^M]
    pairs = log_q[:, index]  # [8, N^M, M]
    every = pairs.unsqueeze(2).expand(-1, -1, batch, -1)  # as if each datum had made this tau
    left_out = leave_one_out(every.flatten(0, 1)).view(8, -1, batch)[..., 0]
    close(left_out, pairs[..., 1:].logsumexp(-1) - math.log(batch - 1))
    exact = log_q.logsumexp(1, keepdim=True) - math.log(len(DATA))
    including = pairs.logsumexp(-1) - math.log(batch)
    low, middle, high = (torch.where(made > 0, made * value, 0.0).sum() for value in (left_out, exact, including))
    assert low < middle < high
    close(middle, (made.sum(1) * exact.squeeze(1)).sum())


def test_leave_one_out_is_reported_for_the_batch():
    joint = corrupted("salt_and_pepper")
    torch.manual_seed(3)
    draws = joint.q(DATA).sample((2,))
    log_q = pairwise_log_prob(joint.q(DATA), draws)  # [2, 8, 8]
    own = log_q.diagonal(dim1=-2, dim2=-1)
    others = torch.stack([log_q[:, b, [m for m in range(8) if m != b]].logsumexp(-1) for b in range(8)], 1)
    log_p = joint.p.conditional(draws).log_prob(DATA)
    expected = (log_p + others - math.log(7) - own).mean(0).detach()
    torch.manual_seed(3)
    estimate = DAE(information="leave_one_out", num_particles=2)(joint, DATA)
    torch.testing.assert_close(estimate.bound, expected, rtol=0, atol=TOLERANCE)
    assert estimate.side == "none"
    alone = DAE(information="leave_one_out")(joint, DATA[:1])
    assert alone.bound is None


def test_gaussian_corruption_learns_to_denoise():
    torch.manual_seed(0)
    model = Denoising(corruption="gaussian", level=0.4, hidden=(16,))
    joint = model.build(Convolved((3,)), BITS, REALS, torch.zeros(3))
    joint.p.bind(joint.q, DATA.float())
    optimizer, seen = torch.optim.Adam(joint.parameters(), 0.02), []
    for _ in range(200):
        surrogate = DAE(num_particles=4)(joint, DATA.float()).surrogate.mean()
        optimizer.zero_grad()
        surrogate.backward()
        optimizer.step()
        seen.append(surrogate.item())
    estimate = DAE(num_particles=50, information="exact")(joint, DATA.float())
    assert sum(seen[-20:]) / 20 < 0.5 * seen[0]
    # With q(tau | x) as spread as this, the joint bound is not far above the entropy of the data.
    assert 1.49 < -estimate.bound.mean() < 2.2


@pytest.mark.parametrize(("kind", "rates"), [("masking", (0.0, 0.65)), ("salt_and_pepper", (0.175, 0.825))])
def test_corruptions_are_what_they_say(kind, rates):
    x = torch.tensor([[0.0, 1.0]]).double()
    posterior = Corruption(kind, 0.35, 1)(x)
    close(posterior.mean, torch.tensor([rates], dtype=torch.float64))
    close(posterior.log_prob(all_bits((2,))).exp().sum(), torch.tensor(1.0).double())
    with pytest.raises(UsageError, match=f"denoising by {kind} is over bits, but the data hold 0.5; binarize them"):
        Corruption(kind, 0.35, 1)(x / 2)


def test_gaussian_corruption_is_what_it_says():
    posterior = Corruption("gaussian", 0.35, 2)(torch.full((4, 3, 2), 0.3))
    assert (posterior.batch_shape, posterior.event_shape) == ((4,), (3, 2))
    close(posterior.stddev, torch.full((4, 3, 2), 0.35))


def test_walkback_leaves_the_data_distribution_invariant():
    torch.manual_seed(1)
    rate, flip = 0.8, 0.15
    joint = Denoising(level=2 * flip, hidden=()).build(Convolved((1,)), BITS, BITS, torch.zeros(1))
    odds = [math.log(rate * on / ((1 - rate) * (1 - on))) for on in (flip, 1 - flip)]  # p(x = 1 | tau)
    layer = joint.p.generator.network[0]
    assert isinstance(layer, nn.Linear)
    layer.bias.data[0], layer.weight.data[0, 0] = odds[0], odds[1] - odds[0]
    start = (torch.rand(40_000, 1) < rate).float()
    end = walkback(joint, start, 3)
    assert not torch.equal(start, end)
    assert end.mean().item() == pytest.approx(rate, abs=FALSE_ALARM * (rate * (1 - rate) / 40_000) ** 0.5)
    far = walkback(joint, torch.zeros_like(start), 40)
    assert far.mean().item() == pytest.approx(rate, abs=FALSE_ALARM * (rate * (1 - rate) / 40_000) ** 0.5)


def test_walkback_stays_where_nothing_is_corrupted():
    joint = Identity().build(RBM((3,)), BITS, BITS, torch.zeros(3))
    assert torch.equal(walkback(joint, DATA, 2), DATA)


def test_refuses_what_cannot_work():
    with pytest.raises(UsageError, match="level must be below 1"):
        Denoising(level=1.0)
    with pytest.raises(
        UsageError, match=r"tau, by gaussian, is over reals, but the prior is over bits; use prior convolved"
    ):
        Denoising(corruption="gaussian", level=1.5).build(RBM((3,)), BITS, BITS, torch.zeros(3))
