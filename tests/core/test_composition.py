"""What an NLL is said to be made of, in worlds where each part is known: what is planted is found where it belongs."""

import math

import attrs
import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

from unibound import Directed, Generator, Inference, JointBound
from unibound.distributions import PointMass
from unibound.evaluation.composition import Composition, compose
from unibound.partition import LogZ, ScaledPrior, enumeration
from unibound.support import boolean
from unibound.testing.priors import Table
from unibound.testing.verdict import FALSE_ALARM
from unibound.testing.worlds import World

NUM_DATA, CLOSE = 3000, 0.02


@attrs.frozen(eq=False)
class Exact:
    """Means of each part over the data of a world, by listing every latent."""

    world: World

    def parts(self, log_data: Tensor) -> dict[str, float]:
        joint, taus = self.world.joint, self.world.taus
        with torch.no_grad():
            x = self.world.xs
            every = taus.unsqueeze(1).expand(-1, len(x), -1)  # [S, N, Z]
            log_q = joint.q(x).log_prob(every)  # [S, N]
            data, latents = joint.p.log_terms(x, every)
            if isinstance(joint.p.prior, Table):
                latents = latents - enumeration.log_sum(joint.p.prior)
            q = log_q.exp()
            log_p = (data + latents).logsumexp(0)  # [N]
            own = {
                "nll": -log_p,
                "data": -(q * data).sum(0),
                "latents": (q * (log_q - latents)).sum(0),
                "posterior": log_p - (q * (data + latents - log_q)).sum(0),
            }
            weights = log_data.exp()
            together = q @ weights  # [S], of tau whatever the datum
            prior = (together * (together.log() - latents[:, 0])).sum()
        return {name: (values * weights).sum().item() for name, values in own.items()} | {"prior": prior.item()}


def drawn(world: World, log_data: Tensor, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return world.xs[torch.multinomial(log_data.exp(), NUM_DATA, replacement=True, generator=random)]


def composed(world: World, train: Tensor | None = None, steps: int = 600, num_particles: int = 100) -> Composition:
    torch.manual_seed(0)
    joint, prior = world.joint, world.joint.p.prior
    normalized = ScaledPrior(prior, LogZ(enumeration.log_sum(prior))) if isinstance(prior, Table) else None
    test, valid = drawn(world, world.log_data, 1), drawn(world, world.log_data, 3)[:500]
    train = drawn(world, world.log_data, 2) if train is None else train
    options = {"num_particles": num_particles, "limit": NUM_DATA, "probe_steps": steps}
    return compose(joint, test, train, valid, normalized, **options)


def assert_found(found: Composition, exact: dict[str, float], lacks: float) -> None:
    """Each part where it is, to the noise of data and particles; those that err low by no more than a little."""
    for name, value in exact.items():
        part = found[name]
        noise = FALSE_ALARM * part.test_stderr
        assert part.test < value + noise + lacks
        assert part.test > value - noise - (CLOSE if name in ("posterior", "prior") else 0.0)


@pytest.fixture(params=["normalized", "with an energy"])
def world(request: pytest.FixtureRequest) -> World:
    return World.of_bits(prior=Table((2,)) if request.param == "with an energy" else None)


def test_parts_of_a_world_add_up_and_are_what_listing_gives(world: World) -> None:
    found = composed(world)
    assert_found(found, Exact(world).parts(world.log_data), lacks=0.01)
    sides = {part.name: part.side for part in found.parts}
    own = {"nll": "upper", "data": "equal", "latents": "equal", "posterior": "lower"}
    assert sides == own | {"prior": "lower", "generator": "lower"}
    for column in ("test", "train", "overfit"):
        nll, data, latents, posterior = (getattr(found[name], column) for name in own)
        assert nll == pytest.approx(data + latents - posterior, abs=1e-9)


def test_a_prior_that_is_wrong_by_so_many_nats() -> None:
    """The prior that is best is q's own of all data; then an energy is planted on it."""
    world = World.of_bits(prior=Table((2,)))
    prior: Table = world.joint.p.prior
    with torch.no_grad():
        log_q = world.joint.q(world.xs).log_prob(world.taus.unsqueeze(1).expand(-1, len(world.xs), -1))
        together = (log_q + world.log_data).logsumexp(1)
        prior.energies.copy_(-together)
    right = composed(world)
    assert abs(right["prior"].test) < FALSE_ALARM * right["prior"].test_stderr + CLOSE
    with torch.no_grad():
        prior.energies.copy_(-together + torch.tensor([0.0, 3.0, -1.0, 2.0]))
    exact, wrong = Exact(world).parts(world.log_data), composed(world)
    assert exact["prior"] > 0.3
    assert_found(wrong, {"prior": exact["prior"]}, lacks=0.0)
    # All of it is in the latents, and nothing in the data given these, or in how training data differ.
    moved = {name: wrong[name].test - right[name].test for name in ("data", "latents")}
    assert moved["data"] == pytest.approx(0.0, abs=0.02)
    assert moved["latents"] == pytest.approx(exact["prior"], abs=0.05)
    assert abs(wrong["nll"].overfit) < FALSE_ALARM * wrong["nll"].overfit_stderr


def test_a_q_that_is_wrong_by_so_many_nats(world: World) -> None:
    before = Exact(world).parts(world.log_data)
    network = next(iter(world.joint.q.children()))
    last = list(network.children())[-1]
    with torch.no_grad():
        last.bias += torch.tensor([1.5, -1.0])
    exact, found = Exact(world).parts(world.log_data), composed(world, steps=0, num_particles=1000)
    assert exact["posterior"] > before["posterior"] + 0.3
    assert exact["nll"] == pytest.approx(before["nll"], abs=1e-9)  # which K particles make up
    del exact["prior"]
    assert_found(found, exact, lacks=0.02)
    assert {part.name for part in found.parts} == set(exact)


def test_a_generator_that_is_wrong_by_so_many_nats() -> None:
    """Biases against what the data are: another generator finds them as they are."""
    world = World.of_bits()
    before, right = Exact(world).parts(world.log_data), composed(world)
    mean = (world.log_data.exp().unsqueeze(1) * world.xs).sum(0)
    with torch.no_grad():
        list(world.joint.p.generator.modules())[-1].bias -= 2 * (mean - 0.5).sign()
    exact, found = Exact(world).parts(world.log_data), composed(world)
    worse = exact["data"] - before["data"]
    assert worse > 0.3
    assert found["generator"].test - right["generator"].test == pytest.approx(worse, abs=0.05)
    assert found["prior"].test == pytest.approx(right["prior"].test, abs=0.02)


def test_what_was_learned_by_heart(world: World) -> None:
    """Training data that p likes better than those of the test, by as much as listing says, part by part."""
    liked = (world.log_data + torch.tensor([3.0, 0, 0, -3.0, 0, 2.0, 0, -2.0])).log_softmax(0)
    found = composed(world, drawn(world, liked, 2), steps=0)
    on_test, on_train = Exact(world).parts(world.log_data), Exact(world).parts(liked)
    for name in ("nll", "data", "latents", "posterior"):
        part, exact = found[name], on_test[name] - on_train[name]
        assert abs(part.overfit - exact) < FALSE_ALARM * part.overfit_stderr + (0.01 if name != "data" else 0.0)
    assert abs(on_test["nll"] - on_train["nll"]) > 0.1


def test_log_z_that_errs_leaves_a_side_only_where_there_is_one() -> None:
    world = World.of_bits(prior=Table((2,)))
    prior = world.joint.p.prior
    x = drawn(world, world.log_data, 1)[:50]
    low = ScaledPrior(prior, LogZ(1.0, 0.3, "lower", ess=40.0, num_chains=50))
    found = compose(world.joint, x, x, x, low, num_particles=4, probe_steps=20)
    assert [found[name].side for name in ("nll", "latents", "prior")] == ["none", "lower", "lower"]
    assert found["nll"].test_stderr > 0.3
    assert found["nll"].overfit_stderr < 0.3 * math.sqrt(2)


def test_the_joint_is_left_as_it_was() -> None:
    world = World.of_bits()
    x = drawn(world, world.log_data, 1)[:50]
    before = {name: value.clone() for name, value in world.joint.state_dict().items()}
    composed(world, x, steps=20)
    assert world.joint.training
    assert all(torch.equal(value, before[name]) for name, value in world.joint.state_dict().items())
    assert all(parameter.grad is None for parameter in world.joint.parameters())


def test_where_tau_holds_the_datum_no_other_generator_is_tried() -> None:
    x, prior = drawn(World.of_bits(), World.of_bits().log_data, 1)[:50], Table((3,))
    exact = ScaledPrior(prior, LogZ(enumeration.log_sum(prior)))
    found = compose(
        JointBound(Itself(), Directed(prior, ItselfAgain())), x, x, x, exact, num_particles=2, probe_steps=5
    )
    assert "generator" not in found
    assert found["data"].test == found["posterior"].test == 0.0


class Itself(Inference):
    """All mass on the datum."""

    def forward(self, x: Tensor) -> Distribution:
        return PointMass(x)


class ItselfAgain(Generator):
    """All mass on the latent."""

    def forward(self, tau: Tensor) -> Distribution:
        return PointMass(tau, support=boolean)
