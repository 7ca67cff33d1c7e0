"""SGVB that climbs something easier than the ELBO: what it reports stays the ELBO, and its bias is declared."""

from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from unibound_plugins.estimators.sgvb import SGVB
from unibound_plugins.models.ladder import Ladder
from unibound_plugins.priors.gaussian import Gaussian

from unibound import Estimate, Estimator, JointBound, UsageError, registries
from unibound.testing import EXAMS, Law, World, expected_bound, expected_gradient, variants
from unibound.testing.laws.candidate import Candidate
from unibound.testing.laws.gradient import declared_bias_is_real, expected_gradient_is_exact
from unibound.testing.laws.value import bound_is_that_of_its_log_weights, log_weights_are_of_the_draws
from unibound.testing.listing import gradients, parameter_groups, scatter
from unibound.testing.verdict import LawBroken

EASED = [SGVB(kl_weight=0.3), SGVB(free_bits=0.7), SGVB(num_particles=2, kl_weight=0.5, free_bits=0.2)]
Reading = Literal["upwards", "downwards"]
READINGS: tuple[Reading, ...] = ("upwards", "downwards")
LIKELIHOODS = registries()["likelihood"]


class Alone(Candidate):
    """In layers of reals three particles have too many outcomes to be listed."""

    def sizes(self) -> list[Estimator]:
        return [self.estimator]


def in_layers(estimator: SGVB) -> Candidate:
    return Alone(estimator, {"layers of reals": World.of_real_layers(6)}, [])


@pytest.mark.parametrize("estimator", [SGVB(kl_weight=0.3), SGVB(free_bits=0.7), SGVB(kl_weight=0.5, free_bits=0.2)])
@pytest.mark.parametrize("law", EXAMS["estimator"].laws, ids=lambda law: law.name)
def test_sits_the_exam_in_layers_of_reals(estimator: SGVB, law: Law) -> None:
    verdict = law.judge(lambda: in_layers(estimator))
    assert verdict.held, verdict.detail


class ReportsWhatItClimbs(SGVB):
    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        estimate = super().__call__(joint, x)
        return Estimate(estimate.surrogate, -estimate.surrogate.detach(), estimate.log_weights, side="lower")


class WeighsWhatItClimbs(SGVB):
    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        estimate = super().__call__(joint, x)
        climbed = -estimate.surrogate.detach()
        return Estimate(estimate.surrogate, climbed, climbed.unsqueeze(0), side="lower")


@pytest.mark.parametrize("settings", [{"kl_weight": 0.3}, {"free_bits": 0.7}])
def test_the_exam_finds_a_bound_that_is_eased(settings: dict[str, float]) -> None:
    with pytest.raises(LawBroken, match="neither bound"):
        bound_is_that_of_its_log_weights(in_layers(ReportsWhatItClimbs(**settings)))
    with pytest.raises(LawBroken, match="log_weights are off"):
        log_weights_are_of_the_draws(in_layers(WeighsWhatItClimbs(**settings)))


def test_what_is_no_choice_is_examined_where_its_field_says_so() -> None:
    made = {words: make() for words, make in variants(SGVB).items()}
    assert made["kl_weight=0.3"] == SGVB(kl_weight=0.3)
    assert made["free_bits=0.7"] == SGVB(free_bits=0.7)
    assert made[""] == SGVB()


@pytest.mark.parametrize("settings", [{"kl_weight": 0.3}, {"free_bits": 0.7}])
@pytest.mark.parametrize(
    ("model", "given"), [("vdm", {}), ("diffusion", {"terms": True, "steps": 3})], ids=["vdm", "diffusion"]
)
def test_refuses_a_p_whose_terms_are_not_told_apart(model: str, given: Any, settings: dict[str, float]) -> None:
    reals, x = LIKELIHOODS["gaussian"](), torch.rand(4, 4)
    made = registries()["model"][model](**given)
    joint = made.build(Gaussian(made.prior_shape((4,))), reals, reals, x.mean(0))
    with pytest.raises(
        UsageError, match=r"sgvb's kl_weight and free_bits need a p that tells.*; leave them out"
    ) as told:
        SGVB(**settings).check(joint, x)
    assert "\n" not in str(told.value)
    SGVB().check(joint, x)


def ladder(reading: Reading) -> tuple[JointBound, Tensor]:
    torch.manual_seed(0)
    model = Ladder(sizes=(3, 2), hidden=(4, 4), reading=reading)
    bits, reals = LIKELIHOODS["bernoulli"](), LIKELIHOODS["gaussian"]()
    return scatter(model.build(Gaussian((2,)), bits, reals, torch.full((5,), 0.4)), 1, 0.4), bits_of(6)


def bits_of(count: int) -> Tensor:
    return torch.rand(count, 5).round().double()


def seeded(joint: JointBound, x: Tensor, estimator: SGVB) -> Estimate:
    torch.manual_seed(3)
    return estimator(joint, x)


@pytest.mark.parametrize("estimator", EASED)
def test_what_is_reported_is_the_elbo(estimator: SGVB) -> None:
    world = World.of_reals(3)
    torch.testing.assert_close(expected_bound(world, estimator), world.bound(1), rtol=0, atol=1e-9)
    for reading in READINGS:
        joint, x = ladder(reading)
        plain = seeded(joint, x, SGVB(num_particles=estimator.num_particles))
        eased = seeded(joint, x, estimator)
        torch.testing.assert_close(eased.bound, plain.bound, rtol=0, atol=0)
        torch.testing.assert_close(eased.log_weights, plain.log_weights, rtol=0, atol=0)
        assert eased.side == "lower"


@pytest.mark.parametrize("estimator", EASED)
def test_bias_is_declared_for_every_group_and_real_in_q_and_the_prior(estimator: SGVB) -> None:
    assert estimator.unbiased == frozenset()
    world = World.of_reals(3)
    exact, got = world.gradient(world.bound(1)), expected_gradient(world, estimator)
    for group in ("q", "prior"):
        assert (got[group] - exact[group]).norm() > 0.05 * exact[group].norm()
    torch.testing.assert_close(got["generator"], exact["generator"], rtol=0, atol=1e-9)  # of one layer alone


def test_the_law_finds_a_bias_that_is_not_declared() -> None:
    class Silent(SGVB):
        @property
        def unbiased(self) -> frozenset[str]:
            return frozenset({"q", "generator", "prior"})

    with pytest.raises(LawBroken, match="declared unbiased"):
        expected_gradient_is_exact(Candidate.of(Silent(kl_weight=0.3)))
    assert "no group is declared biased" in declared_bias_is_real(Candidate.of(SGVB()))


def test_the_generator_between_layers_is_biased() -> None:
    joint, x = ladder("downwards")
    groups = parameter_groups(joint.parts())
    plain, eased = (
        gradients(seeded(joint, x, each).surrogate.sum(), groups)["generator"] for each in (SGVB(), SGVB(kl_weight=0.3))
    )
    assert (plain - eased).norm() > 0.05 * plain.norm()


def test_the_weight_scales_the_divergence_and_nothing_else() -> None:
    world = World.of_reals(3)
    none, half, whole = (expected_gradient(world, SGVB(kl_weight=weight)) for weight in (0.0, 0.5, 1.0))
    for group, gradient in half.items():
        torch.testing.assert_close(gradient, (none[group] + whole[group]) / 2, rtol=0, atol=1e-9)
    torch.testing.assert_close(half["prior"], whole["prior"] / 2, rtol=0, atol=1e-9)


@pytest.mark.parametrize("reading", READINGS)
def test_bits_are_free_in_each_layer_and_datum_by_itself(reading: Reading) -> None:
    """A floor under the sum of layers, or under the mean of a batch, would give other values."""
    joint, x = ladder(reading)
    torch.manual_seed(3)
    tau = joint.particles(x, 2, reparameterized=True).tau
    terms = joint.log_weight_terms(x, tau).mean(1)  # [3, B]
    paid = -terms[1:]
    floor = paid.median().item()
    eased = seeded(joint, x, SGVB(num_particles=2, free_bits=floor)).surrogate
    torch.testing.assert_close(eased, paid.clamp(min=floor).sum(0) - terms[0])
    assert not torch.allclose(eased, paid.sum(0).clamp(min=floor) - terms[0])
    assert not torch.allclose(eased.mean(), (paid.mean(1).clamp(min=floor).sum() - terms[0].mean()))


def test_below_the_floor_nothing_pushes_q_to_the_prior() -> None:
    world = World.of_reals(3)
    free, none = (expected_gradient(world, each) for each in (SGVB(free_bits=1e6), SGVB(kl_weight=0.0)))
    for group, gradient in free.items():
        torch.testing.assert_close(gradient, none[group], rtol=0, atol=1e-9)


def test_refuses_what_it_would_not_mean() -> None:
    with pytest.raises(UsageError, match="leave analytic_kl out"):
        SGVB(analytic_kl=True, free_bits=0.1)
    with pytest.raises(UsageError, match="kl_weight"):
        SGVB(kl_weight=1.5)
    priors, models = registries()["prior"], registries()["model"]
    reals, x = LIKELIHOODS["gaussian"](), torch.rand(2, 4)
    energy = models["mlp"](num_latents=3, hidden=(4,)).build(priors["deep_energy"]((3,)), reals, reals, x.mean(0))
    SGVB(kl_weight=0.5).check(energy, x)
    with pytest.raises(UsageError, match="lacks log Z"):
        SGVB(free_bits=0.5).check(energy, x)
