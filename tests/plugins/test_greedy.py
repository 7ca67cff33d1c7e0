"""Greedy layers against restricted Boltzmann machines that are listed, and weights that stay tied."""

import itertools

import attrs
import pytest
import torch
from torch import Tensor
from unibound_plugins.estimators.greedy import Greedy
from unibound_plugins.models.ladder import Ladder
from unibound_plugins.models.sbn import SBN
from unibound_plugins.priors.bernoulli import Bernoulli
from unibound_plugins.priors.gaussian import Gaussian

from unibound import Estimate, Estimator, JointBound, UsageError, registries
from unibound.distributions import Bits
from unibound.runs.train import Training
from unibound.settings import sources
from unibound.testing import World
from unibound.testing.listing import all_bits, scatter
from unibound.testing.verdict import FALSE_ALARM

LIKELIHOODS = registries()["likelihood"]
BITS, REALS = LIKELIHOODS["bernoulli"](), LIKELIHOODS["gaussian"]()


def net(*sizes: int, tied: bool = True, pixels: int = 4) -> JointBound:
    torch.manual_seed(0)
    return SBN(sizes=sizes, tied=tied).build(Bernoulli((sizes[-1],)), BITS, BITS, torch.full((pixels,), 0.4))


def machine(world: World) -> tuple[Tensor, Tensor, Tensor]:
    """W [V, H], b [V] and c [H] of the lowest layer, leaves of a graph of their own."""
    up, down = world.joint.q.layers[0].network, world.joint.p.generators[0].network
    return tuple(value.detach().clone().requires_grad_() for value in (up.weight.mT, down.bias, up.bias))


def free_energy(v: Tensor, weight: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return -v @ b - torch.nn.functional.softplus(v @ weight + c).sum(-1)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_layer_gets_the_gradient_of_contrastive_divergence(steps: int) -> None:
    """In W, of q as of p, the difference of mean slopes of F where the chain begins and where it ends: by listing."""
    world = World.of_tied_layers(3)
    torch.manual_seed(0)
    weight, b, c = machine(world)
    states, hidden = world.xs, all_bits((2,))
    there = Bits(states @ weight + c).log_prob(hidden.unsqueeze(1)).exp().T  # [V, H]
    back = Bits(hidden @ weight.mT + b).log_prob(states.unsqueeze(1)).exp().T  # [H, V]
    data = world.log_data.exp()
    end = data @ torch.linalg.matrix_power(there @ back, steps)
    energy = ((data - end.detach()) * free_energy(states, weight, b, c)).sum()
    slopes = torch.autograd.grad(energy, (weight, b, c))
    got = [slopes_of(world, Greedy(steps=steps)) for _ in range(CHUNKS)]
    weight_of_q, weight_of_p = (torch.stack([one[name] for one in got]) for name in ("weight of q", "weight of p"))
    torch.testing.assert_close(weight_of_q.mT, weight_of_p)  # of one weight, and not of two halves
    for name, exact in {"weight of p": slopes[0], "bias of p": slopes[1], "bias of q": slopes[2]}.items():
        draws = torch.stack([one[name] for one in got])
        off = (draws.mean(0) - exact) / draws.std(0) * CHUNKS**0.5
        assert off.abs().max() < FALSE_ALARM, name


CHUNKS = 100


def slopes_of(world: World, greedy: Greedy) -> dict[str, Tensor]:
    """The gradient of the surrogate over 200 copies of each datum, in the parameters of the lowest layer."""
    up, down = world.joint.q.layers[0].network, world.joint.p.generators[0].network
    named = {"weight of q": up.weight, "bias of q": up.bias, "weight of p": down.weight, "bias of p": down.bias}
    surrogate = greedy(world.joint, world.xs.repeat(200, 1)).surrogate.view(200, -1).mean(0)
    return dict(zip(named, torch.autograd.grad((world.log_data.exp() * surrogate).sum(), named.values()), strict=True))


class Twice(Estimator):
    """Greedy, the weight of q trained once by its own term and once more by p's."""

    untrained = frozenset({"prior"})
    unbiased = frozenset()

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        right = Greedy()(joint, x)
        up, down = joint.q.layers[0], joint.p.generators[0]
        again = (x.flatten(1) * down(up(x).mean).logits.flatten(1)).sum(1)
        return attrs.evolve(right, surrogate=right.surrogate - 0.5 * again)


def train(joint: JointBound, x: Tensor, *estimators: Estimator) -> None:
    stages = sources.resolve(
        [sources.Layer({"stage": [{"estimator": "greedy", "epochs": 3}] * len(estimators)})]
    ).stages
    chosen = [
        attrs.evolve(stage, estimator=attrs.evolve(stage.estimator, cls=type(one), settings=one))
        for stage, one in zip(stages, estimators, strict=True)
    ]
    list(Training(joint, chosen, x, batch_size=10).epochs())


def apart(joint: JointBound) -> float:
    """How far weights of q are from those of p."""
    pairs = zip(joint.q.layers, joint.p.generators, strict=True)
    return max((up.linear.weight - down.linear.weight.mT).abs().max().item() for up, down in pairs)


def test_weights_stay_tied_through_every_stage_and_the_mutant_tears_them_apart() -> None:
    x = all_bits((4,)).float()[[3, 3, 3, 12, 12, 5] * 10]
    joint = net(3, 2)
    begun = [layer.linear.weight.detach().clone() for layer in joint.q.layers]
    train(joint, x, Greedy(layer=1), Greedy(layer=2))
    assert apart(joint) < 1e-5
    assert all(not torch.equal(old, layer.linear.weight) for old, layer in zip(begun, joint.q.layers, strict=True))
    torn = net(3, 2)
    train(torn, x, Twice())
    assert apart(torn) > 1e-3


def test_a_stage_trains_its_layer_alone() -> None:
    x = all_bits((4,)).float()[[3, 3, 12, 12, 5] * 10]
    joint = net(3, 2)
    before = {name: value.clone() for name, value in joint.state_dict().items()}
    train(joint, x, Greedy(layer=2))
    moved = {name for name, value in joint.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {
        f"{side}.1.linear.{what}" for side, what in itertools.product(("q.layers", "p.generators"), ("weight", "bias"))
    }


REFUSED = {
    "not tied": (lambda: net(3, 2, tied=False), 1, "two that differ"),
    "no such layer": (lambda: net(3, 2), 3, "layer 3 of a net of 2; name one from 1 to 2"),
    "of reals": (
        lambda: SBN(sizes=(3, 2), units="reals").build(Gaussian((2,)), BITS, REALS, torch.full((4,), 0.4)),
        1,
        "layers of bits",
    ),
    "downwards": (
        lambda: Ladder(sizes=(3, 2)).build(Gaussian((2,)), BITS, REALS, torch.full((4,), 0.4)),
        1,
        "a net of layers, and this is none",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_cannot_train_is_refused_in_one_line(case: str) -> None:
    make, layer, words = REFUSED[case]
    with pytest.raises(UsageError, match=words) as caught:
        Greedy(layer=layer).check(make(), torch.rand(5, 4).round())
    assert len(str(caught.value).splitlines()) == 1


def test_tied_weights_that_are_scattered_are_no_longer_a_machine() -> None:
    with pytest.raises(UsageError, match="one weight in q and p"):
        Greedy().check(scatter(net(3, 2), 1), torch.rand(5, 4).round().double())


def test_tied_weights_of_reals_are_refused() -> None:
    with pytest.raises(UsageError, match="of bits alone; leave tied out"):
        SBN(sizes=(3, 2), units="reals", tied=True).build(Gaussian((2,)), BITS, REALS, torch.full((4,), 0.4))
