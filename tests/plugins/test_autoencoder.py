"""The soft-binarized autoencoder: the mean of its soft bits, and where its gradient goes."""

import pytest
import torch
from unibound_plugins.estimators.autoencoder import Autoencoder, soft_bits
from unibound_plugins.models.identity import Identity
from unibound_plugins.models.mlp import MLP
from unibound_plugins.priors.gaussian import Gaussian
from unibound_plugins.priors.rbm import RBM

from unibound import UsageError, registries
from unibound.testing import World
from unibound.testing.priors import Table
from unibound.testing.verdict import FALSE_ALARM

LIKELIHOODS = registries()["likelihood"]
BITS, REALS = LIKELIHOODS["bernoulli"](), LIKELIHOODS["gaussian"]()
# The midpoint rule is exact for a broken line whose kinks, at multiples of 1/20, end its cells.
UNIFORM = (torch.arange(200, dtype=torch.float64) + 0.5) / 200


def antiderivative(t):
    """g(t) = 0, t^2 / 2, t - 1/2 below, in and above [0, 1]."""
    return torch.where(t > 1, t - 0.5, t.clamp(0, 1).square() / 2)


def test_the_mean_is_that_of_the_docstring():
    logits = torch.linspace(-2, 2, 81, dtype=torch.float64)
    closed = antiderivative(logits + 1) - antiderivative(logits)
    torch.testing.assert_close(soft_bits(logits.unsqueeze(1), UNIFORM).mean(1), closed, rtol=0, atol=1e-12)


def test_the_mean_is_centered_like_a_sigmoid_and_the_printed_one_is_not():
    logits = torch.linspace(-2, 2, 81, dtype=torch.float64)
    mean = antiderivative(logits + 1) - antiderivative(logits)
    torch.testing.assert_close(mean + mean.flip(0), torch.ones_like(mean), rtol=0, atol=1e-12)
    printed = soft_bits(torch.zeros((), dtype=torch.float64), UNIFORM - 0.5).mean()
    assert printed.item() == pytest.approx(0.125, abs=1e-12)


def test_surrogate_is_the_reconstruction_from_soft_bits():
    world = World.of_bits(5, Table((2,)))
    torch.manual_seed(6)
    uniform, kept = (torch.rand(8, 2, dtype=torch.float64) for _ in range(2))
    tau = soft_bits(world.joint.q(world.xs).logits, uniform) * (kept >= 0.4)
    torch.manual_seed(6)
    estimate = Autoencoder(mask=0.4)(world.joint, world.xs)
    expected = -world.joint.p.conditional(tau).log_prob(world.xs)
    torch.testing.assert_close(estimate.surrogate, expected, rtol=0, atol=1e-12)
    assert (estimate.bound, estimate.log_weights, estimate.side) == (None, None, "none")


def test_gradient_reaches_q_and_the_generator_and_not_the_prior():
    torch.manual_seed(0)
    world = World.of_bits(5, Table((2,)))
    Autoencoder()(world.joint, world.xs.repeat(5, 1)).surrogate.mean().backward()
    for part in (world.joint.q, world.joint.p.generator):
        assert all(parameter.grad.abs().sum() > 0 for parameter in part.parameters())
    assert world.joint.p.prior.energies.grad is None


def test_the_mask_takes_the_fraction_it_says():
    torch.manual_seed(0)
    seen = []
    joint = MLP(num_latents=50, dropout=0.0).build(RBM((50,)), BITS, BITS, torch.zeros(6))
    joint.p.generator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for bias in joint.q.network[-1].bias, joint.q.network[-1].weight:
        bias.data.zero_().add_(3.0 if bias.dim() == 1 else 0.0)  # every soft bit is 1
    Autoencoder(mask=0.1)(joint, torch.zeros(400, 6))
    Autoencoder(mask=0.0)(joint, torch.zeros(400, 6))
    assert seen[0].mean().item() == pytest.approx(0.9, abs=FALSE_ALARM * (0.09 / 20_000) ** 0.5)
    assert (seen[1] == 1).all()


def test_refuses_codes_that_are_no_bits():
    x = torch.zeros(2, 3)
    reals = MLP(num_latents=3).build(Gaussian((3,)), BITS, REALS, torch.zeros(3))
    with pytest.raises(UsageError, match=r"softens bits, but q\(tau \| x\) is Normals; use a prior over bits"):
        Autoencoder().check(reals, x)
    with pytest.raises(UsageError, match="PointMass"):
        Autoencoder().check(Identity().build(RBM((3,)), BITS, BITS, torch.zeros(3)), x)
