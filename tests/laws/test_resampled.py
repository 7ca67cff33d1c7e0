"""Score, then resample: one particle per datum, drawn by its weight, stands for all, and no expectation moves."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

from unibound import Directed, Estimate, Estimator, JointBound, UsageError, registries
from unibound.testing import EXAMS, World, expected_bound, expected_gradient, rehearse, variance
from unibound.testing.networks import BitGenerator, BitInference, LinearGenerator, LinearInference
from unibound.testing.priors import Bell, Table
from unibound.weights import choose, log_mean_exp, vimco_signal

BITS: dict[str, Callable[[], World]] = {
    "bits": lambda: World.of_bits(10),
    "bits with an energy": lambda: World.of_bits(6, Table((2,))),
    "layers with an energy on top": lambda: World.of_layers(4),
}
CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("vimco", {"baseline": "geometric"}, list(BITS)),
    ("vimco", {"baseline": "arithmetic"}, ["bits"]),
    ("rws", {}, ["bits", "bits with an energy"]),
    ("contrastive_rws", {}, ["bits with an energy"]),
    ("iwae", {"gradient": "standard"}, ["reals"]),
    ("iwae", {"gradient": "stl"}, ["reals"]),
    ("iwae", {"gradient": "dreg"}, ["reals"]),
]


def made(name: str, **settings: Any) -> Estimator:
    if name not in registries()["estimator"]:
        pytest.skip(f"{name} is not installed")
    return registries()["estimator"][name](**settings)


def world_of(name: str) -> World:
    return World.of_reals(6, num_nodes=12) if name == "reals" else BITS[name]()


@pytest.mark.parametrize(("name", "settings", "world"), [(n, s, w) for n, s, worlds in CASES for w in worlds])
def test_every_group_expects_what_it_did(name: str, settings: dict[str, Any], world: str) -> None:
    """Of all groups, those that are biased too: the same expected gradient, and no less noise."""
    few = world_of(world)
    every = made(name, num_particles=2, **settings)
    one = attrs.evolve(every, backward="resampled")
    torch.testing.assert_close(expected_bound(few, one), expected_bound(few, every), rtol=0, atol=1e-12)
    got, exact = expected_gradient(few, one), expected_gradient(few, every)
    for group, gradient in exact.items():
        torch.testing.assert_close(got[group], gradient, rtol=0, atol=1e-10)
    assert variance(few, one, "generator") > 1.001 * variance(few, every, "generator")


@pytest.mark.parametrize("world", ["bits", "bits with an energy"])
def test_three_particles_too(world: str) -> None:
    few, one = world_of(world), made("vimco", num_particles=3, backward="resampled")
    exact = few.gradient(few.bound(3))
    for group, gradient in expected_gradient(few, one).items():
        torch.testing.assert_close(gradient, exact[group], rtol=0, atol=1e-10)


def test_where_q_scores_for_itself_only_p_gets_noisier() -> None:
    few, every = world_of("bits"), made("vimco", num_particles=2)
    one = attrs.evolve(every, backward="resampled")
    assert variance(few, one, "q") == pytest.approx(variance(few, every, "q"), rel=1e-12)


@attrs.frozen
class Resampling(Estimator):
    """VIMCO, resampled, but for what a mutant makes of it."""

    num_particles: int = attrs.field(default=2, validator=attrs.validators.ge(2))

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        right = joint.choose
        joint.choose = lambda log_w: self.chosen(right, log_w)
        try:
            particles = joint.particles(x, self.num_particles, backward="resampled")
        finally:
            joint.choose = right
        log_w = particles.log_weights
        bound = log_mean_exp(log_w)
        surrogate = -((vimco_signal(log_w.detach()) * particles.log_q).sum(0) + self.ascent(log_w))
        return Estimate(surrogate, bound.detach(), log_w.detach(), "lower")

    def chosen(self, right: Callable[[Tensor], Tensor], log_w: Tensor) -> Tensor:
        return right(log_w)

    def ascent(self, log_w: Tensor) -> Tensor:
        return log_mean_exp(log_w)


class ItsNeighbor(Resampling):
    def chosen(self, right: Callable[[Tensor], Tensor], log_w: Tensor) -> Tensor:
        return (right(log_w) + 1) % len(log_w)


class AlwaysTheFirst(Resampling):
    def chosen(self, right: Callable[[Tensor], Tensor], log_w: Tensor) -> Tensor:
        return torch.zeros_like(right(log_w))


class TheBest(Resampling):
    def chosen(self, right: Callable[[Tensor], Tensor], log_w: Tensor) -> Tensor:
        right(log_w)
        return log_w.argmax(0, keepdim=True)


class ByNoWeight(Resampling):
    def chosen(self, right: Callable[[Tensor], Tensor], log_w: Tensor) -> Tensor:
        return right(torch.zeros_like(log_w))


class BySquaredWeight(Resampling):
    def chosen(self, right: Callable[[Tensor], Tensor], log_w: Tensor) -> Tensor:
        return right(2 * log_w)


class ThatOfAnotherDatum(Resampling):
    def chosen(self, right: Callable[[Tensor], Tensor], log_w: Tensor) -> Tensor:
        return right(log_w).roll(1)


class WeighedTwice(Resampling):
    def ascent(self, log_w: Tensor) -> Tensor:
        return (log_w.detach().softmax(0).square() * log_w).sum(0)


class Averaged(Resampling):
    """What the lent gradient is not for: a mean over particles, as of the ELBO."""

    def ascent(self, log_w: Tensor) -> Tensor:
        return log_w.mean(0)


def verdicts(estimator: type[Estimator]) -> dict[str, str]:
    return {verdict.law: verdict.detail for verdict in EXAMS["estimator"].sit(estimator) if not verdict.held}


def test_the_right_one_passes() -> None:
    assert verdicts(Resampling) == {}


@pytest.mark.parametrize(
    "mutant", [ItsNeighbor, AlwaysTheFirst, TheBest, ByNoWeight, BySquaredWeight, WeighedTwice, Averaged]
)
def test_the_wrong_particle_dies(mutant: type[Estimator]) -> None:
    law = next(law for law in EXAMS["estimator"].laws if law.name == "expected_gradient_is_exact")
    verdict = law.judge(lambda: EXAMS["estimator"].prepare(mutant))
    assert not verdict.held
    assert "is declared unbiased, but its expected gradient is not that of L_K" in verdict.detail


def test_a_choice_for_another_datum_dies() -> None:
    law = next(law for law in EXAMS["estimator"].laws if law.name == "each_datum_on_its_own")
    verdict = law.judge(lambda: EXAMS["estimator"].prepare(ThatOfAnotherDatum))
    assert not verdict.held
    assert "changes the gradient of a datum's surrogate" in verdict.detail


@pytest.mark.parametrize(("data", "count"), [(40_000, 1), (1, 40_000), (200, 200)])
def test_what_is_chosen_is_as_frequent_as_its_weight(data: int, count: int) -> None:
    joint, log_w = World.of_bits(1).joint, torch.tensor([-700.0, -699.0, -702.5, -torch.inf]).double()
    torch.manual_seed(0)
    chosen = joint.choose(log_w.unsqueeze(1).expand(-1, data), count)
    assert chosen.shape == (count, data)
    exact = log_w.softmax(0)
    seen = torch.bincount(chosen.flatten(), minlength=4) / 40_000
    assert ((seen - exact).abs() <= 5 * (exact * (1 - exact) / 40_000).sqrt()).all()
    assert len(rehearse(World.of_bits(1), Resampling()).datum) == 8 * 4**2 * 2


@pytest.mark.parametrize("log_w", [[torch.nan, 0.0], [-torch.inf, -torch.inf], [0.0, torch.nan], [torch.inf, 0.0]])
def test_what_cannot_be_weighed_is_left_for_others_to_report(log_w: list[float]) -> None:
    assert set(choose(torch.tensor(log_w).unsqueeze(1), 50).flatten().tolist()) <= {0, 1}


class Unsteady(BitGenerator):
    """p(x | tau) behind a layer that scores by chance, or by who else is in the batch."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(2, 3)
        self.layer = layer

    def forward(self, tau: Tensor) -> Any:
        return super().forward(self.layer(tau.flatten(0, -2)).view_as(tau))


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(2)], ids=["dropout", "batch norm"])
def test_a_p_that_scores_anew_is_refused(layer: nn.Module) -> None:
    torch.manual_seed(0)
    joint = JointBound(BitInference(3, (2,)), Directed(Table((2,)), Unsteady(layer)))
    x, estimator = torch.tensor([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]), made("vimco", backward="resampled")
    joint.advance()
    for ask in (lambda: estimator.check(joint, x), lambda: estimator(joint, x)):
        with pytest.raises(UsageError, match=r"scores a latent anew .*use backward all"):
            ask()
    assert made("vimco")(joint, x).surrogate.isfinite().all()
    joint.eval()
    with torch.no_grad():
        assert estimator(joint, x).surrogate.isfinite().all()
    joint.train()
    with pytest.raises(UsageError):
        estimator(joint, x)


def test_nothing_as_wide_as_p_is_kept_for_every_particle() -> None:
    k, width = 2500, 2000
    joint = JointBound(BitInference(width, (2,)), World.of_bits(1).p)
    joint.p.generator = BitGenerator(2, width)
    x = (torch.rand(1, width) < 0.5).float()
    joint.float()
    with torch.profiler.profile(profile_memory=True) as profile:
        Resampling(k)(joint, x).surrogate.sum().backward()
    assert max(event.self_cpu_memory_usage for event in profile.events()) < k * width * 4 // 2


def test_without_a_graph_all_are_scored_alike() -> None:
    world = World.of_bits(2)
    bounds = []
    for backward in ("all", "resampled"):
        torch.manual_seed(0)
        with torch.no_grad():
            bounds.append(made("vimco", backward=backward)(world.joint, world.xs).bound)
    assert torch.equal(*bounds)


@pytest.mark.parametrize("gradient", ["standard", "stl", "dreg"])
def test_of_reparameterized_draws_no_more_is_kept_than_their_noise(gradient: str) -> None:
    """A score of all with a graph, as of all that are sent back, would keep what it is made of."""
    k, latents, x = 40, 3, torch.randn(5, 2)
    joint = JointBound(LinearInference(2, (latents,)), Directed(Bell((latents,)), LinearGenerator(latents, 2))).float()
    large: set[int] = set()  # addresses of what is as large as all draws

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.nbytes() >= k * len(x) * latents * tensor.element_size():
            large.add(storage.data_ptr())
        return tensor

    kept = {}
    for backward in ("all", "resampled"):
        large.clear()
        iwae = made("iwae", num_particles=k, gradient=gradient, backward=backward)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            estimate = iwae(joint, x)
        kept[backward] = len(large)
        estimate.surrogate.sum().backward()
    assert kept["resampled"] == 1
    assert kept["all"] > 2
