"""The two joints, on worlds that can be listed."""

import pytest
import torch

from unibound import JointBound, UsageError
from unibound.testing import World
from unibound.testing.listing import all_bits, gradients, parameter_groups, scatter
from unibound.testing.priors import Rates, Table


@pytest.fixture(params=[Rates, Table])
def world(request: pytest.FixtureRequest) -> World:
    return World.of_bits(3, request.param((2,)))


def table(seed: int = 1, num_chains: int = 5) -> Table:
    return scatter(Table((2,), num_chains=num_chains), seed)


def test_particles_are_scored_under_both_joints(world: World) -> None:
    particles = world.joint.particles(world.xs[:5], 3)
    assert particles.tau.shape == (3, 5, 2)
    assert particles.log_q.shape == particles.log_p.shape == particles.log_weights.shape == (3, 5)
    assert not particles.tau.requires_grad
    log_q = world.joint.q(world.xs[:5]).log_prob(particles.tau)
    log_p = world.p.prior.log_prob(particles.tau) + world.p.generator(particles.tau).log_prob(world.xs[:5])
    torch.testing.assert_close(particles.log_weights, log_p - log_q)


def test_reparameterized_particles_carry_the_path() -> None:
    world = World.of_reals(1)
    joint, groups = world.joint, parameter_groups({"q": world.joint.q})
    torch.manual_seed(0)
    particles = joint.particles(world.xs, 2, reparameterized=True)
    assert particles.tau.requires_grad
    assert not joint.particles(world.xs, 2).tau.requires_grad
    whole = gradients(particles.log_q.sum(), groups)["q"]
    torch.manual_seed(0)
    path = gradients(joint.particles(world.xs, 2, reparameterized=True, path_only=True).log_q.sum(), groups)["q"]
    score = gradients(joint.q(world.xs).log_prob(particles.tau.detach()).sum(), groups)["q"]
    torch.testing.assert_close(whole - path, score)


@pytest.mark.parametrize("persistent", [False, True])
def test_dreams_are_detached_draws(world: World, persistent: bool) -> None:
    x, tau = world.joint.p.dream(7, persistent=persistent)
    assert x.shape == (7, 3)
    assert tau.shape == (7, 2)
    assert not x.requires_grad
    assert not tau.requires_grad
    assert set(x.unique().tolist()) | set(tau.unique().tolist()) <= {0.0, 1.0}


def test_only_an_energy_prior_is_unnormalized() -> None:
    assert World.of_bits(0).joint.p.unnormalized is None
    energetic = World.of_bits(0, Table((2,)))
    assert energetic.joint.p.unnormalized is energetic.p.prior


def test_parts_are_disjoint_and_complete(world: World) -> None:
    joint = world.joint
    assert set(joint.parts()) == {"q", "generator", "prior"}
    listed = [parameter for part in joint.parts().values() for parameter in part.parameters()]
    assert len({id(parameter) for parameter in listed}) == len(listed) == len(list(joint.parameters()))
    joint.auxiliary = torch.nn.Linear(2, 1)
    assert set(joint.parts()) == {"q", "generator", "prior", "auxiliary"}


def test_log_prob_has_the_value_of_minus_energy_and_a_negative_phase() -> None:
    prior, taus = table(), all_bits((2,))
    groups = parameter_groups({"prior": prior})
    torch.testing.assert_close(prior.log_prob(taus), -prior.free_energy(taus))
    with pytest.raises(UsageError, match=r"table has chains that were never moved; call joint.advance\(\)"):
        prior.log_prob(taus).mean().backward()
    prior.advance()
    positive = gradients(-prior.free_energy(taus).mean(), groups)["prior"]
    negative = gradients(-prior.free_energy(prior.chains).mean(), groups)["prior"]
    got = gradients(prior.log_prob(taus).mean(), groups)["prior"]
    torch.testing.assert_close(got, positive - negative)
    prior.eval()
    torch.testing.assert_close(prior.log_prob(taus), -prior.free_energy(taus))
    with pytest.raises(UsageError, match="table gives no gradient of log p in evaluation mode"):
        prior.log_prob(taus).mean().backward()
    tau = taus.clone().requires_grad_()  # that of tau is the gradient of -F, in any mode
    assert torch.autograd.grad(prior.log_prob(tau).sum(), tau, allow_unused=True)[0] is None


def test_chains_move_when_advanced_and_only_then() -> None:
    joint = JointBound(World.of_bits(0).joint.q, World.of_bits(0, table(num_chains=50)).joint.p)
    prior = joint.p.unnormalized
    assert isinstance(prior, Table)
    before = prior.chains.clone()
    prior.log_prob(all_bits((2,))), prior.persistent(9), prior.sample(9)
    torch.testing.assert_close(prior.chains, before, rtol=0, atol=0)
    joint.advance()
    assert not torch.equal(prior.chains, before)
    copy = table(num_chains=50)
    copy.double().load_state_dict(prior.state_dict())
    torch.testing.assert_close(copy.chains, prior.chains, rtol=0, atol=0)


def test_anneal_up_and_down_undo_each_other_in_one_step() -> None:
    prior = table()
    tau = prior.base_sample(6)
    betas = torch.tensor([0.0, 1.0], dtype=torch.float64)
    _, up = prior.anneal(tau, betas)
    torch.testing.assert_close(up, prior.free_energy(tau, 0.0).detach() - prior.free_energy(tau, 1.0).detach())
    moved, down = prior.anneal(tau, betas.flip(0))
    torch.testing.assert_close(down, prior.free_energy(moved, 1.0).detach() - prior.free_energy(moved, 0.0).detach())
    assert up.dtype == down.dtype == torch.float64


def test_enumeration_sums_to_z() -> None:
    prior = table()
    states = prior.enumeration()
    assert states.num_bits == 2
    torch.testing.assert_close(
        states.log_f(all_bits((2,))).logsumexp(0), (-prior.free_energy(all_bits((2,)))).logsumexp(0)
    )


def test_divergence_bounds_the_likelihood(world: World) -> None:
    found = world.joint.divergence(world.xs, world.log_data, world.taus)
    data = world.log_data.exp()
    assert found.nll == pytest.approx(-(data * world.log_prob()).sum().item())
    assert found.bound == pytest.approx(-(data * world.bound(1)).sum().item())
    assert found.kl == pytest.approx(found.bound + (data * world.log_data).sum().item())
    assert found.bound > found.nll
