"""What is watched, on worlds where it is known; and that watching leaves no trace."""

import attrs
import pytest
import torch
from torch import Tensor

from unibound.evaluation.evaluate import Evaluation, evaluate
from unibound.runs.watch import STILL, Watched, _crossed, watch
from unibound.testing import World
from unibound.testing.priors import Categories, Rates, Table
from unibound.testing.verdict import FALSE_ALARM

CHAIN = {"reconstruction", "code_free_energy", "chain_free_energy", "chain_moved", "chain_crossed"}


class Still(Table):
    """A chain that stays where it is."""

    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        return tau.clone()


class Anew(Table):
    """A chain that forgets where it was."""

    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        return torch.randint(2, tau.shape).to(tau)


def look(world: World, x: Tensor | None = None) -> Watched:
    x = world.xs.repeat(50, 1) if x is None else x
    return watch(world.joint, x, evaluated(world), seed=3)


def evaluated(world: World) -> Evaluation:
    return evaluate(world.joint, world.xs, num_particles=4)


def test_weights_are_those_of_the_evaluation():
    world = World.of_bits(3, Rates((2,)))
    valid = evaluated(world)
    found = watch(world.joint, world.xs, valid, seed=3)
    assert (found.valid_ess, found.valid_gap) == (valid.ess, valid.gap)
    assert found.numbers.keys().isdisjoint(CHAIN)


def test_saturated_and_active_bits_are_counted():
    world = World.of_bits(0, Rates((2,)))
    last = [module for module in world.joint.q.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight[0], last.bias[0] = 0, 2.9  # a probability of 0.948: nearly sure, and the same for all data
        last.weight[1] *= 3
    moving = (world.joint.q(world.xs).mean[:, 1] - 0.5).abs() > 0.45
    found = look(world)
    assert found.saturated == pytest.approx(moving.double().mean().item() / 2)
    assert found.active == 1
    with torch.no_grad():
        last.bias[0] = 3.0  # 0.953
    assert look(world).saturated == pytest.approx(moving.double().mean().item() / 2 + 0.5)


@pytest.mark.parametrize(("saturated", "words"), [(0.93, "93% of the bits of q"), (0.89, None), (None, None)])
def test_a_posterior_that_is_a_code_is_said_to_be_one(saturated, words):
    said = Watched(saturated=saturated).certain
    assert said is None if words is None else words in said


def test_latents_that_are_no_bits_do_not_saturate():
    found = look(World.of_reals(0))
    assert found.saturated is None
    assert found.active == 1


def test_a_q_without_parameters_has_no_units_to_fall_idle(fix):
    world = World.of_bits(3, Rates((2,)))
    fix(world.joint.q)
    assert look(world).active is None


def codes(world: World, x: Tensor) -> Tensor:
    """Share of each listed latent among codes of data, in expectation: [S]."""
    return world.joint.q(x).log_prob(world.taus.unsqueeze(1)).exp().mean(1)


def test_free_energies_are_those_of_codes_and_of_chains():
    world = World.of_bits(3, Table((2,), num_chains=7))
    prior, data = world.p.prior, world.xs.repeat(100, 1)
    energies, share = prior.free_energy(world.taus), codes(world, data[:500])  # [S]
    found = look(world, data)
    spread = (energies.square() @ share - (energies @ share).square()).item() ** 0.5
    assert abs(found.code_free_energy - (energies @ share).item()) < FALSE_ALARM * spread / 500**0.5
    assert found.chain_free_energy == pytest.approx(prior.free_energy(prior.chains).mean().item())


def test_reconstruction_is_that_of_one_step():
    world = World.of_bits(3, Table((2,), steps=9))
    data = world.xs.repeat(100, 1)
    flips = (world.taus.unsqueeze(1) - world.taus).abs().mean(-1)  # [S, S]
    step = world.p.prior.log_transition(world.taus).exp()  # [S, S]
    expected = codes(world, data[:500]) @ (step * flips).sum(1)
    assert abs(look(world, data).reconstruction - expected.item()) < FALSE_ALARM * 0.5 / 500**0.5


@pytest.mark.parametrize(("prior", "moved"), [(Still, 0.0), (Anew, 1.0)])
def test_chains_that_stay_and_chains_that_forget(prior: type[Table], moved: float):
    torch.manual_seed(0)
    found = look(World.of_bits(3, prior((2,), num_chains=4000)))
    assert found.chain_moved == pytest.approx(moved, abs=0.06)
    assert found.chain_crossed == pytest.approx(moved, abs=0.2)
    assert found.reconstruction == pytest.approx(moved / 2, abs=0.1)


@pytest.mark.parametrize("chains", [torch.zeros(1, 2), torch.ones(6, 2)])
def test_chains_that_are_all_alike_say_nothing_of_mixing(chains: Tensor):
    world = World.of_bits(3, Table((2,), num_chains=len(chains)))
    world.p.prior.chains.copy_(chains)
    assert look(world).numbers.keys() >= CHAIN - {"chain_moved"}
    assert look(world).chain_moved is None


@pytest.mark.parametrize(
    ("coupling", "up", "stuck"),
    [(0.2, 1.0, True), (0.2, 0.5, True), (0.05, 1.0, False)],
    ids=["in one phase", "in both", "of one phase"],
)
def test_phases_that_no_chain_leaves_are_seen_however_lively_chains_are(coupling: float, up: float, stuck: bool):
    spins = pytest.importorskip("unibound_plugins.priors.spin_rbm").SpinRBM
    identity = pytest.importorskip("unibound_plugins.models.identity").Identity()
    gaussian = pytest.importorskip("unibound_plugins.likelihoods.gaussian").Gaussian()
    prior = spins((12,), num_hidden=12, num_chains=100, steps=5)
    prior.weight.data.fill_(coupling)
    prior.chains.fill_(1.0)[: int(100 * (1 - up))] = -1
    for _ in range(10):
        prior.advance()
    data = torch.ones(200, 12)
    data[::2] = -1
    joint = identity.build(prior, gaussian, gaussian, data.mean(0))
    found = watch(joint, data, evaluate(joint, data, num_particles=2), seed=0)
    assert found.chain_moved > STILL  # which says nothing
    assert (found.stuck is not None) == stuck
    assert (found.chain_crossed < 0.02) == stuck


@pytest.mark.parametrize(("num_chains", "told"), [(50, True), (49, False)])
def test_codes_that_a_prior_has_not_learned_yet_are_no_phase(num_chains: int, told: bool):
    """Chains never go there, but what is put there does not stay; and few chains are no evidence at all."""
    prior = pytest.importorskip("unibound_plugins.priors.spin_rbm").SpinRBM((6,), num_hidden=2, num_chains=num_chains)
    prior.visible_bias.data.fill_(2.0)
    prior.chains.fill_(1.0)
    crossed = _crossed(prior, -torch.ones(200, 6))
    assert (crossed is not None) == told
    if told:
        assert crossed == pytest.approx(1, abs=0.05)


class Halves(Categories):
    """Chains that are all 1, or anything but 1, and stay so: of the same mean, site by site."""

    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        return torch.where(tau == 1, tau, 2.0 * torch.randint(2, tau.shape).to(tau))


def test_sides_of_categories_do_not_depend_on_their_numbers():
    prior = Halves((5,), num_chains=200)
    prior.chains.fill_(1.0)[::2] = 0.0
    prior.chains.copy_(prior.move(prior.chains))
    codes = prior.move(prior.chains.clone())
    assert _crossed(prior, codes) == 0
    assert _crossed(prior, torch.ones_like(codes[:, :5])) == 0


@pytest.mark.filterwarnings("error")
def test_a_single_datum_is_enough_to_look_at():
    world = World.of_bits(3, Table((2,)))
    assert look(world, world.xs[:1]).active is None


def test_watching_leaves_no_trace():
    world = World.of_bits(3, Table((2,)))
    before = {name: value.clone() for name, value in world.joint.state_dict().items()}
    state, valid = torch.get_rng_state(), evaluated(world)
    torch.set_rng_state(state)
    first = watch(world.joint, world.xs, valid, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in world.joint.state_dict().items())
    torch.rand(5)
    assert watch(world.joint, world.xs, valid, seed=3) == first
    assert watch(world.joint, world.xs.flip(0), valid, seed=4) != first
    assert attrs.asdict(first).keys() >= CHAIN
