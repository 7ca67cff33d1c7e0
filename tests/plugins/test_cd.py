"""Contrastive divergence against its own definition, chain by chain and state by state."""

import pytest
import torch
from unibound_plugins.estimators.cd import CD, joint_divergence
from unibound_plugins.models.identity import Identity
from unibound_plugins.models.mlp import MLP
from unibound_plugins.priors.gaussian import Gaussian
from unibound_plugins.priors.rbm import RBM

from unibound import EnergyPrior, Likelihood, Transition, UsageError, registries
from unibound.distributions import Bits
from unibound.runs.train import Training
from unibound.settings.records import Choice, Optimizer, Stage
from unibound.testing import World
from unibound.testing.listing import all_bits, scatter
from unibound.testing.priors import Table

TOLERANCE = 1e-9
BITS: Likelihood = registries()["likelihood"]["bernoulli"]()


def close(got, expected, atol=TOLERANCE):
    torch.testing.assert_close(got, expected, rtol=0, atol=atol)


def machine(num_visible=3, num_hidden=2, seed=7):
    """An RBM with scattered parameters."""
    return scatter(RBM((num_visible,), num_hidden=num_hidden), seed)


def plain(prior):
    """The identity model of a prior over bits."""
    return Identity().build(prior, BITS, BITS, torch.zeros(prior.event_shape))


class Ending(Transition):
    """Moves every state to one and the same."""

    def __init__(self, end):
        self.end = end

    def __call__(self, energy, tau, beta):
        return self.end.expand_as(tau)


def parameters(prior):
    return [prior.weight, prior.visible_bias, prior.hidden_bias]


def flat_gradient(value, prior):
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(value, parameters(prior))])


def hidden_given(prior, v):
    return Bits(v @ prior.weight + prior.hidden_bias)


def visible_given(prior, h):
    return Bits(h @ prior.weight.mT + prior.visible_bias)


def chain_ratio(prior, xs, hs):
    """log q(h_0, x_1, ..., x_k | x_0) - log p(x_0, h_0, ..., | x_k), one conditional after another."""
    total = torch.zeros(())
    for t in range(len(xs) - 1):
        total = total + hidden_given(prior, xs[t]).log_prob(hs[t]) + visible_given(prior, hs[t]).log_prob(xs[t + 1])
        total = total - hidden_given(prior, xs[t + 1]).log_prob(hs[t]) - visible_given(prior, hs[t]).log_prob(xs[t])
    return total


def transition(prior, states):
    """T(x' | x) by listing hidden states, conditional by conditional."""
    hidden = all_bits((prior.weight.shape[1],))
    up = hidden_given(prior, states.unsqueeze(1)).log_prob(hidden)  # [S, G]
    down = visible_given(prior, hidden.unsqueeze(1)).log_prob(states)  # [G, S]
    return up.exp() @ down.exp()


def data_set():
    """Data over three bits, some of them twice, and their probabilities over all states."""
    states = all_bits((3,))
    x = states[torch.tensor([1, 1, 1, 4, 6, 6, 7, 2])]
    probability = (x.unsqueeze(1) == states).all(2).double().mean(0)
    return x, states, probability


def textbook(prior, v):
    """E[dF / dW], E[dF / db] and E[dF / dc], negated: the sufficient statistics of v [N, V], one row per v."""
    rate = (v @ prior.weight + prior.hidden_bias).sigmoid()
    return torch.cat([(v.unsqueeze(2) * rate.unsqueeze(1)).flatten(1), v, rate], 1).detach()


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
def test_log_ratio_of_any_chain_telescopes_to_the_surrogate(steps):
    prior = machine(4, 3, seed=steps)
    xs, hs = ((torch.rand(steps + 1, size) < 0.5).double() for size in (4, 3))
    prior.transition = Ending(xs[-1:])
    close(chain_ratio(prior, xs, hs), CD(steps=steps)(plain(prior), xs[:1]).surrogate[0])


def test_transitions_of_an_rbm_are_its_conditionals():
    prior, states = machine(), all_bits((3,))
    listed = prior.log_transition(states).exp()
    close(listed, transition(prior, states))
    close(listed.sum(1), torch.ones(8).double())
    probability = (-prior.free_energy(states)).softmax(0)
    balance = probability.unsqueeze(1) * listed
    close(balance, balance.mT)


@pytest.mark.parametrize("steps", [1, 3])
def test_expected_gradient_is_the_textbook_one(steps):
    prior = machine()
    x, states, _ = data_set()
    ends = transition(prior, states).matrix_power(steps)[(x @ torch.tensor([1.0, 2, 4]).double()).long()].detach()
    expected = torch.zeros(11).double()
    for number, end in enumerate(states):  # every datum of the batch ends in this state
        prior.transition = Ending(end)
        surrogate = CD(steps=steps)(plain(prior), x).surrogate
        expected = expected - flat_gradient((ends[:, number] * surrogate).mean(), prior)
    close(expected, textbook(prior, x).mean(0) - (ends @ textbook(prior, states)).mean(0))


def test_approaches_maximum_likelihood_as_chains_grow():
    prior = machine()
    x, states, data = data_set()
    log_z = (-prior.free_energy(states)).logsumexp(0)
    likelihood = flat_gradient((-prior.free_energy(x)).mean() - log_z, prior)
    one_step = transition(prior, states).detach()
    gaps = []
    for steps in (1, 2, 4, 16, 300):
        end = data @ one_step.matrix_power(steps)
        cd = textbook(prior, x).mean(0) - end @ textbook(prior, states)
        gaps.append((cd - likelihood).norm().item())
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.01
    assert gaps[-1] < TOLERANCE


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_policy_gradient_is_that_of_hintons_objective(steps):
    prior = machine()
    x, states, data = data_set()
    log_p = -prior.free_energy(states) - (-prior.free_energy(states)).logsumexp(0)
    end = data @ transition(prior, states).matrix_power(steps)

    def divergence(probability):
        return torch.xlogy(probability, probability).sum() - probability @ log_p

    hinton = divergence(data) - divergence(end)
    surrogate = CD(steps=steps, policy_gradient=True)(plain(prior), x).surrogate
    entropy = -torch.xlogy(data, data).sum()
    close(surrogate.mean() - entropy, hinton)
    assert hinton > 0
    close(flat_gradient(surrogate.mean(), prior), flat_gradient(hinton, prior))
    truncated = textbook(prior, x).mean(0) - end.detach() @ textbook(prior, states)
    assert (flat_gradient(-joint_divergence(prior, x, steps).mean(), prior) - truncated).norm() > 1e-5


def test_joint_divergence_bounds_the_directed_model_and_not_the_rbm():
    prior = machine()
    x, states, data = data_set()
    log_p = -prior.free_energy(states) - (-prior.free_energy(states)).logsumexp(0)
    for steps in (1, 2, 5):
        bound = joint_divergence(prior, x, steps).mean()
        end = data @ transition(prior, states).matrix_power(steps)
        directed = data @ transition(prior, states).matrix_power(2 * steps)
        assert bound > -(data @ directed.log())
        close(-(data @ log_p) - bound, end @ (end.log() - log_p))  # KL(p_k || p), above zero


def test_persistent_chains_that_are_stationary_give_maximum_likelihood():
    prior, (x, states, _) = machine(), data_set()
    weights = (-prior.free_energy(states)).softmax(0).detach()
    exact = flat_gradient(prior.free_energy(x).mean() + (-prior.free_energy(states)).logsumexp(0), prior)
    expected = torch.zeros_like(exact)
    for state, weight in zip(states, weights, strict=True):
        prior.chains = state.unsqueeze(0)
        expected += weight * flat_gradient(CD(chain="persistent")(plain(prior), x).surrogate.mean(), prior)
    close(expected, exact)


def test_a_step_moves_the_persistent_chains_only_if_they_are_read():
    x = all_bits((3,))
    for estimator, moves in ((CD(chain="persistent"), True), (CD(steps=2), False)):
        joint = plain(machine())
        training = Training(joint, [stage(estimator)], x, batch_size=4)
        before = joint.p.prior.chains.clone()
        estimate = training.step(estimator, x)
        assert torch.equal(joint.p.prior.chains, before) is not moves
        assert (estimate.bound, estimate.log_weights, estimate.side) == (None, None, "none")


def test_codes_of_q_train_the_prior_alone():
    joint = World.of_bits(5, Table((2,))).joint
    CD()(joint, all_bits((3,))).surrogate.mean().backward()
    assert joint.p.prior.energies.grad.abs().sum() > 0
    assert all(parameter.grad is None for part in (joint.q, joint.p.generator) for parameter in part.parameters())


@pytest.mark.parametrize("estimator", [CD(), CD(steps=5), CD(chain="persistent"), CD(policy_gradient=True)], ids=str)
def test_learns_a_distribution(estimator):
    torch.manual_seed(0)
    joint = plain(machine(num_hidden=3))
    x, states, data = data_set()
    entropy = -torch.xlogy(data, data).sum()

    def nll():
        return (joint.p.prior.free_energy(x).mean() + (-joint.p.prior.free_energy(states)).logsumexp(0)).item()

    before = nll()
    for _ in Training(joint, [stage(estimator, epochs=400)], x.repeat(4, 1), batch_size=32).epochs():
        pass
    assert entropy < nll() < entropy + 0.5 * (before - entropy)


class Opaque(Table):
    """An energy prior that cannot tell its transitions."""

    log_transition = EnergyPrior.log_transition


def stage(estimator, epochs=1):
    choice = Choice.of("estimator", estimator)
    return Stage(choice, epochs=epochs, optimizer=Optimizer(learning_rate=0.02))


def refused(estimator, joint, match):
    with pytest.raises(UsageError, match=match):
        estimator.check(joint, torch.zeros(2, *joint.p.prior.event_shape))


def test_refuses_what_cannot_work():
    reals = registries()["likelihood"]["gaussian"]()
    model = MLP(num_latents=3)
    refused(CD(), model.build(Gaussian((3,)), BITS, reals, torch.zeros(3)), "use vimco or sgvb, or prior rbm")
    refused(CD(chain="persistent", steps=25), plain(RBM((3,))), "set steps = 25 on the prior")
    refused(CD(chain="persistent", policy_gradient=True), plain(RBM((3,))), "leave policy_gradient out")
    refused(CD(policy_gradient=True), plain(RBM((64,))), r"2\^64 states")
    refused(CD(policy_gradient=True), plain(RBM((4,), num_hidden=500)), "hidden states")
    refused(CD(policy_gradient=True), plain(Opaque((3,))), "Opaque cannot be listed; use a small rbm")
    CD(chain="persistent", steps=25).check(plain(RBM((3,), steps=25)), torch.zeros(2, 3))
    with pytest.raises(UsageError, match=r"hold 0\.5; binarize"):
        CD().check(plain(RBM((3,))), torch.full((2, 3), 0.5))
