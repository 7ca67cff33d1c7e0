"""The exam is worth what it catches: wrong estimators, most of them shipped by someone once, fail by name."""

import re
from collections.abc import Callable

import attrs
import pytest
import torch
from torch import Tensor

from unibound import Estimate, Estimator, JointBound, Particles
from unibound.testing import EXAMS, Verdict, examine_estimator
from unibound.weights import log_mean_exp, vimco_signal

Rule = Callable[[Particles], Estimate]


def right(particles: Particles) -> Estimate:
    """VIMCO, as it should be."""
    log_w = particles.log_weights
    bound = log_mean_exp(log_w)
    surrogate = -((vimco_signal(log_w.detach()) * particles.log_q).sum(0) + bound)
    return Estimate(surrogate, bound.detach(), log_w.detach(), "lower")


def with_signal(particles: Particles, signal: Tensor) -> Estimate:
    bound = log_mean_exp(particles.log_weights)
    return attrs.evolve(right(particles), surrogate=-((signal * particles.log_q).sum(0) + bound))


def estimator_of(rule: Rule, **declared: object) -> type[Estimator]:
    @attrs.frozen
    class Mutant(Estimator):
        num_particles: int = attrs.field(default=2, validator=attrs.validators.ge(2))

        def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
            return rule(joint.particles(x, self.num_particles))

    for name, value in declared.items():
        setattr(Mutant, name, value)
    return Mutant


def undetached_signal(particles: Particles) -> Estimate:
    return with_signal(particles, vimco_signal(particles.log_weights))


def score_dropped(particles: Particles) -> Estimate:
    return attrs.evolve(right(particles), surrogate=-log_mean_exp(particles.log_weights))


def density_term_dropped(particles: Particles) -> Estimate:
    log_w = particles.log_weights
    path = log_mean_exp(particles.log_p - particles.log_q.detach())
    surrogate = -((vimco_signal(log_w.detach()) * particles.log_q).sum(0) + path)
    return attrs.evolve(right(particles), surrogate=surrogate)


def baseline_sees_its_own_particle(particles: Particles) -> Estimate:
    log_w = particles.log_weights.detach()
    return with_signal(particles, log_mean_exp(log_w) - log_w / 2)


def guide_gets_no_gradient(particles: Particles) -> Estimate:
    return attrs.evolve(right(particles), surrogate=-log_mean_exp(particles.log_p - particles.log_q.detach()))


def guide_gets_rounding(particles: Particles) -> Estimate:
    nothing = (0.1 * particles.log_q + 0.2 * particles.log_q - 0.3 * particles.log_q).sum(0)
    return attrs.evolve(right(particles), surrogate=guide_gets_no_gradient(particles).surrogate + nothing)


def guide_gradient_flipped(particles: Particles) -> Estimate:
    estimate = right(particles)
    for_p = -log_mean_exp(particles.log_p - particles.log_q.detach())
    log_w = particles.log_p.detach() - particles.log_q
    for_q = -((vimco_signal(log_w.detach()) * particles.log_q).sum(0) + log_mean_exp(log_w))
    return attrs.evolve(estimate, surrogate=for_p - for_q)


def summed_over_particles(particles: Particles) -> Estimate:
    return attrs.evolve(right(particles), surrogate=2 * right(particles).surrogate)


def one_over_k_missing(particles: Particles) -> Estimate:
    return attrs.evolve(right(particles), bound=particles.log_weights.detach().logsumexp(0))


def mean_under_normalized_weights(particles: Particles) -> Estimate:
    log_w = particles.log_weights.detach()
    return attrs.evolve(right(particles), bound=(log_w.softmax(0) * log_w).sum(0))


def scale_inside_logsumexp(particles: Particles) -> Estimate:
    log_w = 20 * particles.log_weights.detach()  # 20 data for each in the batch
    return attrs.evolve(right(particles), bound=log_mean_exp(log_w) / 20)


def weights_scaled(particles: Particles) -> Estimate:
    return attrs.evolve(right(particles), log_weights=20 * particles.log_weights.detach())


def weights_normalized_over_the_batch(particles: Particles) -> Estimate:
    log_w = particles.log_weights
    w_norm = log_w.detach().flatten().softmax(0).view_as(log_w)
    return attrs.evolve(right(particles), surrogate=-(w_norm * log_w).sum(0))


def bound_averaged_over_the_batch(particles: Particles) -> Estimate:
    estimate = right(particles)
    assert estimate.bound is not None
    return attrs.evolve(estimate, bound=estimate.bound.mean().expand_as(estimate.bound))


def random_for_the_same_x(particles: Particles) -> Estimate:
    estimate = right(particles)
    assert estimate.bound is not None
    return attrs.evolve(estimate, bound=estimate.bound + 0.1 * torch.randn_like(estimate.bound))


def surrogate_reported(particles: Particles) -> Estimate:
    return attrs.evolve(right(particles), bound=-right(particles).surrogate.detach())


def bound_attached(particles: Particles) -> Estimate:
    return attrs.evolve(right(particles), bound=log_mean_exp(particles.log_weights))


def surrogate_detached(particles: Particles) -> Estimate:
    return attrs.evolve(right(particles), surrogate=right(particles).surrogate.detach())


def summed_over_the_batch(particles: Particles) -> Estimate:
    return attrs.evolve(right(particles), surrogate=right(particles).surrogate.sum())


def single_precision(particles: Particles) -> Estimate:
    estimate = right(particles)
    assert estimate.bound is not None
    return attrs.evolve(estimate, bound=estimate.bound.float())


def called_equal(particles: Particles) -> Estimate:
    return attrs.evolve(right(particles), side="equal")


def absolute_log_weights(particles: Particles) -> Estimate:
    log_w = particles.log_weights.detach()
    return attrs.evolve(right(particles), surrogate=right(particles).surrogate - (log_w * particles.log_p).mean(0))


def falls_with_particles(particles: Particles) -> Estimate:
    log_w = particles.log_weights.detach()
    return attrs.evolve(right(particles), bound=log_w.mean(0) - len(log_w), log_weights=None)


@attrs.frozen
class Particular(Estimator):
    """The right one, but for how it comes by its particles."""

    num_particles: int = attrs.field(default=2, validator=attrs.validators.ge(2))

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        return right(self.drawn(joint, x))

    def drawn(self, joint: JointBound, x: Tensor) -> Particles:
        return joint.particles(x, self.num_particles)


class MoreThanMeansOfTerms(Particular):
    def drawn(self, joint: JointBound, x: Tensor) -> Particles:
        return joint.particles(x, self.num_particles, whole=False)


class ManyPerLayer(Particular):
    """The top drawn given another particle's bottom, as where each layer is drawn K times by itself."""

    def drawn(self, joint: JointBound, x: Tensor) -> Particles:
        tau = joint.particles(x, self.num_particles).tau
        tau = torch.cat([tau[..., :1], tau[..., 1:].roll(1, 0)], -1)
        return Particles(tau, joint.q(x).log_prob(tau), joint.p.log_joint(x, tau))


CAUGHT: list[tuple[Rule, str, str]] = [
    (undetached_signal, "expected_gradient_is_exact", "not detached"),
    (score_dropped, "expected_gradient_is_exact", "score-function term of the draws is missing"),
    (density_term_dropped, "expected_gradient_is_exact", "term of the score dropped"),
    (baseline_sees_its_own_particle, "expected_gradient_is_exact", "baseline not blind to its own draw"),
    (guide_gets_no_gradient, "expected_gradient_is_exact", "q is declared unbiased.*no gradient reaches it"),
    (guide_gets_no_gradient, "every_group_is_trained", "no gradient reaches q .q 0, generator"),
    (guide_gets_rounding, "every_group_is_trained", "no gradient reaches q"),
    (guide_gradient_flipped, "expected_gradient_is_exact", "the sign is flipped"),
    (summed_over_particles, "expected_gradient_is_exact", "it is 2 times the exact one"),
    (one_over_k_missing, "bound_is_that_of_its_log_weights", "1/K is missing"),
    (one_over_k_missing, "bound_is_on_its_side", "1/K is missing"),
    (mean_under_normalized_weights, "bound_is_that_of_its_log_weights", "sum of normalized weight times log-weight"),
    (scale_inside_logsumexp, "bound_is_that_of_its_log_weights", "scaled inside the logsumexp"),
    (mean_under_normalized_weights, "bound_is_on_its_side", r"log p\*\(x\) = .*, which is no bound"),
    (scale_inside_logsumexp, "bound_is_on_its_side", "scaled inside the logsumexp"),
    (weights_scaled, "log_weights_are_of_the_draws", "20 times as large"),
    (weights_normalized_over_the_batch, "each_datum_on_its_own", "shared over the batch"),
    (bound_averaged_over_the_batch, "each_datum_on_its_own", "over the batch"),
    (random_for_the_same_x, "same_draws_same_bound", "it is random"),
    (surrogate_reported, "bound_is_that_of_its_log_weights", "negative surrogate"),
    (bound_attached, "bound_is_detached", "detach it"),
    (surrogate_detached, "bound_is_detached", "carries no gradient"),
    (summed_over_the_batch, "shapes_and_dtypes", r"surrogate of 5 data has shape \[\], not \[5\]"),
    (single_precision, "shapes_and_dtypes", "bound is torch.float32 for data in torch.float64"),
    (called_equal, "bound_is_on_its_side", "says 'equal', but .*only a bound of it"),
    (absolute_log_weights, "log_z_drops_out", "no absolute log-weights"),
    (falls_with_particles, "more_particles_tighten_the_bound", "falls by"),
]


def failed(estimator: type[Estimator]) -> dict[str, str]:
    return {verdict.law: verdict.detail for verdict in examine_estimator(estimator) if not verdict.held}


def judged(estimator: type[Estimator], name: str) -> Verdict:
    exam = EXAMS["estimator"]
    return next(law for law in exam.laws if law.name == name).judge(lambda: exam.prepare(estimator))


def test_the_right_one_passes() -> None:
    assert failed(estimator_of(right)) == {}


@pytest.mark.parametrize(("rule", "law", "words"), CAUGHT, ids=lambda value: getattr(value, "__name__", None))
def test_mutant_dies(rule: Rule, law: str, words: str) -> None:
    verdict = judged(estimator_of(rule), law)
    assert not verdict.held
    assert re.search(words, verdict.detail), verdict.detail
    assert bool(re.search(r"\d", verdict.detail)) == (law != "bound_is_detached")  # which has no numbers to give


@pytest.mark.parametrize(
    ("mutant", "law", "words"),
    [
        (MoreThanMeansOfTerms, "partial_draws_are_only_averaged", "off their mean, the ELBO"),
        (ManyPerLayer, "bound_is_that_of_its_log_weights", "layers with an energy on top: .* neither bound"),
        (ManyPerLayer, "expected_gradient_is_exact", "layers with an energy on top"),
    ],
)
def test_wrong_particles_die(mutant: type[Estimator], law: str, words: str) -> None:
    verdict = judged(mutant, law)
    assert not verdict.held
    assert re.search(words, verdict.detail), verdict.detail


def test_an_average_of_terms_is_held_to_be_one() -> None:
    @attrs.frozen
    class Mean(Particular):
        def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
            particles = joint.particles(x, self.num_particles, whole=False)
            log_w = particles.log_weights  # [K, B]
            surrogate = -(log_w + log_w.detach() * particles.log_q).mean(0)
            return Estimate(surrogate, log_w.mean(0).detach(), log_w.detach(), "lower")

    verdict = judged(Mean, "partial_draws_are_only_averaged")
    assert verdict.held
    assert "averaged, within" in verdict.detail
    assert "refuses them" in judged(Particular, "partial_draws_are_only_averaged").detail


def test_bias_must_be_declared_as_it_is() -> None:
    modest = failed(estimator_of(right, unbiased=frozenset({"generator", "prior"})))
    assert "q: not in `unbiased`, but the expected gradient is exact" in modest.pop("declared_bias_is_real")
    assert modest == {}
    honest = failed(estimator_of(score_dropped, unbiased=frozenset({"generator", "prior"})))
    assert honest == {}


def test_a_bound_of_its_own_kind_is_held_to_its_own_gradient() -> None:
    def renyi(particles: Particles, *, score: bool) -> Estimate:
        log_w = particles.log_weights  # a power mean of the weights, of order 1/2
        bound = 2 * log_mean_exp(log_w / 2)
        signal = bound.detach() if score else torch.zeros_like(bound)
        return Estimate(-(bound + (signal * particles.log_q).sum(0)), bound.detach(), None, "lower")

    assert failed(estimator_of(lambda particles: renyi(particles, score=True))) == {}
    broken = failed(estimator_of(lambda particles: renyi(particles, score=False)))
    assert "not that of its own E[bound]" in broken["expected_gradient_is_exact"]


def test_a_check_that_lets_all_pass_is_found_out() -> None:
    @attrs.frozen
    class Careless(Estimator):
        def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
            log_w = joint.particles(x, 1, reparameterized=True).log_weights
            return Estimate(-log_w[0], log_w[0].detach(), log_w.detach(), "lower")

    laws = failed(Careless)
    assert set(laws) == {"check_refuses_what_cannot_work"}
    assert "Bits has no reparameterized draws" in laws["check_refuses_what_cannot_work"]


def test_what_cannot_be_made_or_run_says_why() -> None:
    @attrs.frozen
    class Demanding(Estimator):
        size: int

        def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
            raise NotImplementedError

    assert all("TypeError" in verdict.detail for verdict in examine_estimator(Demanding))

    @attrs.frozen
    class Crowded(Estimator):
        crowd: int = 30

        def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
            return right(joint.particles(x, self.crowd))

    verdicts: list[Verdict] = examine_estimator(Crowded)
    assert all("examine it with fewer particles" in verdict.detail for verdict in verdicts)
