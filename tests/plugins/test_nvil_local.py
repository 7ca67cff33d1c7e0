"""NVIL with a signal for each layer: what is left out has mean zero, and what is left has less variance."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from unibound_plugins.estimators import nvil
from unibound_plugins.estimators.nvil import NVIL
from unibound_plugins.priors.rbm import RBM

from unibound import JointBound, Layered, Particles, Upward, UsageError, registries
from unibound.testing import Replay, World, expected_bound, expected_gradient, rehearse
from unibound.testing.laws.candidate import Candidate
from unibound.testing.laws.gradient import expected_gradient_is_exact
from unibound.testing.listing import all_bits, gradients, number
from unibound.testing.networks import BitGenerator, BitInference
from unibound.testing.priors import Rates
from unibound.testing.verdict import LawBroken

LIKELIHOODS, MODELS, PRIORS = (registries()[kind] for kind in ("likelihood", "model", "prior"))
LOCAL = NVIL(local=True)


def deep(sizes: tuple[int, ...] = (1, 2, 1), seed: int = 4) -> World:
    """Two pixels and layers of bits above them."""
    fans = (2, *sizes)
    q = Upward([BitInference(below, (above,)) for below, above in zip(fans[:-1], sizes, strict=True)], sizes)
    p = Layered(Rates(sizes[-1:]), [BitGenerator(*pair) for pair in zip(sizes, fans[:-1], strict=True)], sizes)
    taus = all_bits((sum(sizes),))
    return World.of(JointBound(q, p), seed, 1.5, all_bits((2,)), taus, torch.zeros(len(taus)), None)


WORLDS: dict[str, Callable[[], World]] = {
    "three layers": deep,
    "an energy on top": lambda: World.of_layers(4),
    "a machine on top": lambda: World.of_layers(5, RBM((2,), num_hidden=3)),
    "one layer": lambda: deep((2,)),
}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("num_particles", [1, 2])
def test_expected_gradient_is_that_of_the_elbo(world: str, num_particles: int) -> None:
    made, estimator = WORLDS[world](), NVIL(num_particles=num_particles, local=True)
    estimator.check(made.joint, made.xs)
    got = expected_gradient(made, estimator)
    for group, exact in made.gradient(made.bound(1)).items():
        torch.testing.assert_close(got[group], exact, rtol=0, atol=1e-9)
    elbo = (made.bound(1) + made.log_z()).detach()
    torch.testing.assert_close(expected_bound(made, estimator), elbo, rtol=0, atol=1e-9)


def test_the_signal_of_the_lowest_layer_is_the_whole() -> None:
    world = deep()
    particles = world.joint.particles(world.xs, 3, by_layer=True)
    signals, log_q = nvil.signals_by_layer(particles)
    torch.testing.assert_close(signals[0], particles.log_weights)
    torch.testing.assert_close(log_q.sum(0), particles.log_q)
    one, two, three = particles.tau.split([1, 2, 1], -1)
    *_, between, above = world.joint.p.generators
    own = between(two).log_prob(one) - world.joint.q.layers[1](one).log_prob(two)
    top = (
        above(three).log_prob(two) - world.joint.q.layers[2](two).log_prob(three) + world.joint.p.prior.log_prob(three)
    )
    torch.testing.assert_close(signals[1], own + top)
    torch.testing.assert_close(signals[2], top)


def later(particles: Particles) -> tuple[Tensor, Tensor]:
    """Begins at the layer's own term, and lacks what it says of the layer below."""
    assert particles.layers is not None
    log_p, log_q = particles.layers.log_p, particles.layers.log_q
    rest = (log_p[1:] - log_q).flip(0).cumsum(0).flip(0)
    return torch.cat([log_p[:1] + rest[:1], rest[1:]]), log_q


def nearest(particles: Particles) -> tuple[Tensor, Tensor]:
    """Lacks what lies above the next layer."""
    assert particles.layers is not None
    log_p, log_q = particles.layers.log_p, particles.layers.log_q
    return log_p[:-1] + log_p[1:] - log_q, log_q


def reversed_(particles: Particles) -> tuple[Tensor, Tensor]:
    """Sums downwards what is to be summed upwards."""
    assert particles.layers is not None
    log_p, log_q = particles.layers.log_p, particles.layers.log_q
    return log_p[:-1] + (log_p[1:] - log_q).cumsum(0), log_q


@pytest.mark.parametrize("mutant", [later, nearest, reversed_])
def test_a_signal_without_a_term_that_matters_is_biased(
    mutant: Callable[[Particles], tuple[Tensor, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvil, "signals_by_layer", mutant)
    with pytest.raises(LawBroken, match="q is declared unbiased"):
        expected_gradient_is_exact(Candidate.of(LOCAL))


def test_a_baseline_that_sees_its_own_layer_is_biased(monkeypatch: pytest.MonkeyPatch) -> None:
    def above(self: nvil.Baseline, x: Tensor, signal: Tensor, scale: Tensor | None = None) -> Tensor:
        return signal - self.network(x).squeeze(-1) + signal.square()

    monkeypatch.setattr(nvil.Baseline, "forward", above)
    with pytest.raises(LawBroken, match="q is declared unbiased"):
        expected_gradient_is_exact(Candidate.of(LOCAL))


def second_moment(world: World, estimator: NVIL, baselines: nn.Module) -> float:
    """Exact second moment of q's gradient; of two with the same mean the smaller has less variance."""
    replay = Replay(world, torch.arange(len(rehearse(world, estimator).datum)))
    replay.joint.auxiliary = baselines.eval()
    surrogate = estimator(replay.joint, world.xs[replay.datum]).surrogate
    rows = torch.stack([gradients(value, {"q": world.groups()["q"]})["q"] for value in surrogate])
    weight = replay.log_prob.exp() * world.log_data.exp()[replay.datum]
    return (weight.unsqueeze(1) * rows.square()).sum().item()


class Table(nn.Module):
    """A number for each state of some bits."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values

    def forward(self, x: Tensor) -> Tensor:
        return self.values[number(x)].unsqueeze(-1)


def perfect(world: World, estimator: NVIL) -> nn.Module:
    """The baselines that are best by least squares: the exact mean of each signal given what the baseline sees."""
    replay = Replay(world, torch.arange(len(rehearse(world, NVIL()).datum)))
    x = world.xs[replay.datum]
    particles = replay.joint.particles(x, 1, by_layer=True)
    weight = replay.log_prob.exp() * world.log_data.exp()[replay.datum]
    known = [x, *particles.tau[0].split(particles.posterior.sizes, -1)[:-1]]
    made = []
    for signal, below in zip(nvil.signals_by_layer(particles)[0].detach()[:, 0], known, strict=True):
        share, total = (
            torch.zeros(2 ** below.shape[-1]).double().index_add(0, number(below), values)
            for values in (weight, weight * signal)
        )
        baseline = nvil.Baseline(1, 1, 0.9).double()
        baseline.network = Table(total / share)
        made.append(baseline)
    return nn.ModuleList(made) if estimator.local else made[0]


@pytest.mark.parametrize(
    ("world", "ratio"),
    [
        (lambda: deep(seed=1), 0.81),
        (lambda: deep(seed=2), 0.75),
        (lambda: deep(seed=5), 0.76),
        (lambda: World.of_layers(1), 0.80),
        (lambda: World.of_layers(3), 0.66),
    ],
)
def test_the_variance_is_less(world: Callable[[], World], ratio: float) -> None:
    made = world()
    whole, local = (second_moment(made, each, perfect(made, each)) for each in (NVIL(), LOCAL))
    assert local / whole == pytest.approx(ratio, abs=0.01)


def test_one_layer_has_the_whole_signal() -> None:
    world = deep((2,))
    plain, local = NVIL(), LOCAL
    baseline = plain.auxiliary(world.joint, world.xs).double()
    one, other = (
        rehearsed(world, each, held) for each, held in ((plain, baseline), (local, nn.ModuleList([baseline])))
    )
    torch.testing.assert_close(one, other)


def rehearsed(world: World, estimator: NVIL, baselines: nn.Module) -> Tensor:
    replay = Replay(world, torch.arange(len(world.xs)))
    replay.joint.auxiliary = baselines.eval()
    return estimator(replay.joint, world.xs).surrogate.detach()


def test_one_scale_serves_all_layers() -> None:
    """The first batch on, only the length of q's step differs, and not its direction."""
    world = deep()
    joint = JointBound(world.joint.q, world.joint.p)
    baselines = joint.auxiliary = LOCAL.auxiliary(joint, world.xs).double()
    torch.manual_seed(0)
    for _ in range(20):
        LOCAL(joint, world.xs)
    first, *others = baselines
    assert first.scale > 1.5
    assert all(not torch.isclose(other.scale, first.scale) for other in others)

    class Kept(NVIL):
        def auxiliary(self, joint: JointBound, x: Tensor) -> nn.Module:
            return copy.deepcopy(baselines)

    got, exact = expected_gradient(world, Kept(local=True)), world.gradient(world.bound(1))
    torch.testing.assert_close(got["q"], exact["q"] / first.scale, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("model", "settings", "prior"),
    [
        ("mlp", {"num_latents": 4}, "bernoulli"),
        ("ladder", {"sizes": (3, 2), "hidden": (4, 4)}, "gaussian"),
        ("identity", {}, "rbm"),
    ],
)
def test_refuses_layers_that_do_not_come_apart(model: str, settings: dict[str, Any], prior: str) -> None:
    joint, x = built(model, settings, prior)
    with pytest.raises(UsageError, match=r"local signals need layers.*; leave local out"):
        LOCAL.check(joint, x)


@pytest.mark.parametrize(
    ("model", "settings", "prior"),
    [
        ("sbn", {"sizes": (4, 3, 2)}, "rbm"),
        ("sbn", {"sizes": (4,)}, "bernoulli"),
        ("ladder", {"sizes": (3, 2), "hidden": (4, 4), "reading": "upwards"}, "gaussian"),
        ("sbn", {"sizes": (4, 3)}, "dbm"),
    ],
)
def test_works_with_what_is_drawn_upwards(model: str, settings: dict[str, Any], prior: str) -> None:
    joint, x = built(model, settings, prior)
    LOCAL.check(joint, x)
    joint.auxiliary = LOCAL.auxiliary(joint, x)
    joint.advance()
    torch.manual_seed(2)
    local = LOCAL(joint, x)
    joint.auxiliary = NVIL().auxiliary(joint, x)
    torch.manual_seed(2)
    torch.testing.assert_close(local.bound, NVIL()(joint, x).bound)
    local.surrogate.mean().backward()
    slopes = [parameter.grad for parameter in joint.q.parameters()]
    assert all(slope is not None and slope.isfinite().all() for slope in slopes)


def built(model: str, settings: dict[str, Any], prior: str) -> tuple[JointBound, Tensor]:
    torch.manual_seed(0)
    x = torch.rand(5, 6).round()
    made = MODELS[model](**settings)
    over = PRIORS[prior](made.prior_shape((6,)))
    posterior = LIKELIHOODS["gaussian" if prior == "gaussian" else "bernoulli"]()
    joint = made.build(over, LIKELIHOODS["bernoulli"](), posterior, x.mean(0))
    joint.p.bind(joint.q, x)
    return joint, x


def test_baselines_of_another_signal_are_refused() -> None:
    joint, x = built("sbn", {"sizes": (4, 3)}, "bernoulli")
    joint.auxiliary = NVIL().auxiliary(joint, x)
    with pytest.raises(UsageError, match="auxiliary"):
        LOCAL(joint, x)
