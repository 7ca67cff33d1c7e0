"""The model that q and p make together: what it is, its log Z, its moves and its draws, all against listing."""

import pytest
import torch
from torch import Tensor
from unibound_plugins.estimators.renyi import Renyi
from unibound_plugins.priors.rbm import RBM

from unibound import JointBound, Side, UsageError
from unibound.bidirectional import Bidirectional, Meeting, Twice, _joined
from unibound.partition import annealing, enumeration, schedules
from unibound.testing import World
from unibound.testing.priors import Rates

WORLDS = {"one": lambda: World.of_bits(4), "layers": lambda: World.of_layers(4, Rates((2,)))}


def made_of(world: World) -> World:
    """The same data under the model that q and p of a world make; its latents are pairs."""
    with torch.no_grad():
        taus = torch.cat([world.taus.repeat_interleave(len(world.taus), 0), world.taus.repeat(len(world.taus), 1)], 1)
        joint = Renyi().makes(world.joint)["bihm"].eval()
        return World(joint, world.xs, world.log_data, taus, torch.zeros(len(taus)).double(), None)


def listed(world: World) -> Tensor:
    """2 log sum_h sqrt(p(x, h) q(h | x)) of every datum [N], nats."""
    tau = world.every_tau()
    return 2 * ((world.log_joint(tau) + world.joint.q(world.xs).log_prob(tau)) / 2).logsumexp(0)


def misfit(drawn: Tensor, states: Tensor, log_p: Tensor) -> float:
    """Pearson's chi square of draws [M, S] from states [N, S] of log-probabilities [N], standardized."""
    codes = 2.0 ** torch.arange(states.shape[1], dtype=torch.float64)
    rank = torch.searchsorted((states @ codes).sort().values, drawn @ codes)
    order = (states @ codes).argsort()
    expected = log_p.exp()[order] * len(drawn)
    chi = ((torch.bincount(rank, minlength=len(states)) - expected).square() / expected).sum().item()
    return (chi - (len(states) - 1)) / (2 * (len(states) - 1)) ** 0.5


@pytest.mark.parametrize("name", WORLDS)
def test_it_is_the_square_of_the_sum_over_latents(name: str) -> None:
    world, made = WORLDS[name](), made_of(WORLDS[name]())
    own = listed(world)
    torch.testing.assert_close(made.log_z(), own.logsumexp(0))
    torch.testing.assert_close(made.log_prob(), own.log_softmax(0))
    assert made.log_z().item() < 0
    assert bool((own < world.log_prob()).all())
    assert bool((own < made.log_prob()).all())
    assert bool((made.log_prob() > world.log_prob()).any())  # it is another model, which some data are likelier under
    pairs = made.joint.q(made.xs).log_prob(made.every_tau())
    torch.testing.assert_close(pairs.logsumexp(0), torch.zeros(len(made.xs)).double())
    torch.testing.assert_close(made.joint.p.unnormalized.base_log_z(), 0.0)


@pytest.mark.parametrize("name", WORLDS)
def test_importance_sampling_from_dreams_of_p_errs_low(name: str) -> None:
    """E[w] over p(x, h) q(h' | x) is Z^2 exactly, and so E[log w] is below log Z^2."""
    made = made_of(WORLDS[name]())
    energy, states = made.joint.p.unnormalized, made.states()[0]
    with torch.no_grad():
        base, log_w = -energy.free_energy(states, 0.0), energy.free_energy(states, 0.0) - energy.free_energy(states)
        torch.testing.assert_close(base.logsumexp(0), torch.zeros(()).double())
        torch.testing.assert_close((base + log_w).logsumexp(0), made.log_z())
        assert (base.exp() * log_w).sum() < made.log_z()
        torch.manual_seed(0)
        for chains, temperatures in ((10_000, 1), (1000, 5)):
            found = annealing.forward(energy, chains, schedules.make("linear", temperatures))[1]
            log_z = annealing.lower_bound(energy, found)
            assert log_z.side is Side.LOWER
            assert log_z.trustworthy
            assert 0 < log_z.stderr < 0.02
            assert made.log_z().item() in log_z.interval
            assert abs(log_z.value - made.log_z().item() / 2) > 4 * log_z.stderr  # Z^2 it is, and not Z


class Forgetful(Meeting):
    """Resamples from the candidates alone, as is written in the paper: few of them leave another distribution."""

    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        x, one, _ = self.pieces(tau)
        for _ in range(steps):
            xs = self.p.conditional(one).sample((2,))
            others = self.q(xs).sample()
            log_w = self._log_w(self.q(xs), xs, others) - self._log_w(self.q(xs), xs, one.expand_as(others))
            index = torch.distributions.Categorical(logits=beta / 2 * log_w.mT).sample(), torch.arange(len(x))
            x, other = xs[index], others[index]
            ones = self.q(x).sample((2,))
            log_w = (1 - beta / 2) * self._log_w(self.q(x), x, ones)
            one = ones[torch.distributions.Categorical(logits=log_w.mT).sample(), torch.arange(len(x))]
        return _joined(x, one, other)


class Halved(Meeting):
    """Weighs by sqrt of what p and q disagree about where the path asks for another power."""

    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        return super().gibbs(tau, steps, 1.0)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("candidates", [1, 4])
def test_a_step_leaves_its_temperature_as_it_is(beta: float, candidates: int) -> None:
    world = made_of(World.of_bits(4))
    energy, states = world.joint.p.unnormalized, world.states()[0]
    energy.num_candidates = candidates
    torch.manual_seed(1)
    log_p = (-energy.free_energy(states, beta).detach()).log_softmax(0)
    start = states[torch.multinomial(log_p.exp(), 20_000, replacement=True)]
    assert abs(misfit(start, states, log_p)) < 4
    end = energy.move(start, 1, beta)
    assert misfit(end, states, log_p) < 4
    assert (end != start).any(1).double().mean() > 0.3
    energy.__class__ = Forgetful
    assert misfit(energy.move(start, 1, beta), states, log_p) > 8
    energy.__class__ = Halved
    assert (misfit(energy.move(start, 1, beta), states, log_p) > 8) == (beta < 1)


@pytest.mark.parametrize("name", WORLDS)
def test_dreams_are_draws_from_it_and_not_from_p(name: str) -> None:
    world, made = WORLDS[name](), made_of(WORLDS[name]())
    made.joint.p.prior.mixing_steps, made.joint.p.prior.num_candidates = 10, 3
    torch.manual_seed(0)
    x, tau = made.joint.p.dream(10_000)
    assert tau.shape == (10_000, made.taus.shape[1])
    with torch.no_grad():
        assert misfit(x, made.xs, made.log_prob()) < 4
        assert misfit(x, made.xs, world.log_prob()) > 6
        assert misfit(world.p.dream(10_000)[0], made.xs, made.log_prob()) > 6
    again, _ = made.joint.p.dream(150, persistent=True)
    assert again.shape == (150, *made.xs.shape[1:])


def test_what_is_over_bits_is_listed() -> None:
    made = made_of(World.of_bits(4))
    energy = made.joint.p.unnormalized
    assert enumeration.log_sum(energy) == pytest.approx(made.log_z().item())
    drawn = enumeration.draw(energy, 20_000)
    states = made.states()[0]
    assert abs(misfit(drawn, states, -energy.free_energy(states).detach() - made.log_z().detach())) < 4


def test_reals_are_drawn_and_weighed_too() -> None:
    world = World.of_reals(1)
    joint = Renyi().makes(world.joint)["bihm"]
    energy = joint.p.unnormalized
    assert energy.enumeration() is None
    x, tau = joint.p.dream(5)
    assert (x.shape, tau.shape) == ((5, 2), (5, 2))
    particles = joint.particles(world.xs, 3)
    alone = [world.joint.p.log_joint(world.xs, one) + world.joint.q(world.xs).log_prob(one) for one in
             particles.tau.chunk(2, -1)]  # fmt: skip
    torch.testing.assert_close(particles.log_p, sum(alone) / 2)


def test_its_networks_are_those_of_the_joint() -> None:
    world = World.of_bits(4)
    made = Renyi().makes(world.joint)["bihm"]
    assert {id(one) for one in made.parameters()} == {id(one) for one in world.joint.parameters()}
    assert list(made.q.parameters()) == []
    assert {name: part for name, part in made.parts().items() if name != "q"} == {"prior": made.p.prior}


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_other_orders_make_no_model(alpha: float) -> None:
    assert Renyi(alpha=alpha).makes(World.of_bits(4).joint) == {}


def test_a_p_without_its_log_z_makes_none() -> None:
    world = World.of_bits(4, RBM((2,), num_hidden=2))
    with pytest.raises(UsageError, match="RBM is known up to its log Z; use a prior such as bernoulli"):
        Bidirectional(world.joint.q, world.joint.p)
    assert Renyi().makes(world.joint) == {}


@pytest.mark.parametrize("wrong", [{"num_candidates": 0}, {"num_chains": 0}])
def test_nothing_to_move_by_is_refused(wrong: dict[str, int]) -> None:
    world = World.of_bits(4)
    with pytest.raises(UsageError, match="at least 1"):
        Bidirectional(world.joint.q, world.joint.p, **wrong)


def test_pairs_are_refused_where_gradients_should_flow_through_them() -> None:
    world = World.of_reals(1)
    made = JointBound(Twice(world.joint.q), Bidirectional(world.joint.q, world.joint.p))
    with pytest.raises(UsageError, match="no reparameterized draws"):
        made.particles(world.xs, 2, reparameterized=True)
