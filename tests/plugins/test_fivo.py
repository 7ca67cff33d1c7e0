"""FIVO: right on average, L_K where nothing is resampled, padding for nothing; and wrong filters die."""

import json
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from padding import padded
from running import called, refused
from torch import Tensor
from torch.distributions import Distribution
from unibound_plugins.estimators.fivo import FIVO
from unibound_plugins.estimators.iwae import IWAE
from unibound_plugins.likelihoods.bernoulli import Bernoulli as BernoulliLikelihood
from unibound_plugins.likelihoods.gaussian import Gaussian as GaussianLikelihood
from unibound_plugins.models.draw import DRAW
from unibound_plugins.models.vrnn import GRU, VRNN
from unibound_plugins.priors.bernoulli import Bernoulli
from unibound_plugins.priors.gaussian import Gaussian

from unibound import Estimate, Estimator, JointBound, UsageError
from unibound.distributions import Bits
from unibound.draws import draw
from unibound.sequences.filtering import filtering_bound
from unibound.sequences.recurrent import Follower, RecurrentGeneration, RecurrentInference
from unibound.testing import EXAMS, World, expected_bound, expected_gradient, rehearse
from unibound.testing.listing import all_bits, scatter
from unibound.weights import log_mean_exp

STEPS = 4


def vrnn(flags: bool = False, reals: bool = True) -> JointBound:
    reads, prior = (GaussianLikelihood(), Gaussian((2,))) if reals else (BernoulliLikelihood(), Bernoulli((2,)))
    model, mean = VRNN(num_latents=2, width=3, flags=flags), torch.full((STEPS, 2 + flags), 0.4)
    torch.manual_seed(0)
    return scatter(model.build(prior, BernoulliLikelihood(), reads, mean), 1)


def test_gradients_are_declared_exact_where_nothing_is_resampled() -> None:
    assert FIVO(threshold=0.0).unbiased == FIVO(num_particles=1).unbiased == IWAE().unbiased
    assert FIVO(threshold=0.7).unbiased == frozenset()


def right_on_average(world: World, estimator: Estimator) -> float:
    """How far log E[exp(bound)] is from the log of the mean weight of one particle, by the same nodes, at most."""
    rehearsal, posterior = rehearse(world, estimator), world.joint.q(world.xs)
    tau, log_prob = world.nodes(posterior)
    exact = (log_prob + world.log_joint(tau) - posterior.log_prob(tau)).logsumexp(0)
    assert rehearsal.estimate.bound is not None
    return (rehearsal.mean(rehearsal.estimate.bound.exp()).log() - exact).abs().max().item()


@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.8, 1.0])
@pytest.mark.parametrize("k", [1, 2])
@torch.no_grad()
def test_its_exponential_is_unbiased(k: int, threshold: float) -> None:
    world = World.of_steps(3)
    assert right_on_average(world, FIVO(k, threshold)) < 1e-9
    assert (world.log_prob() - expected_bound(world, FIVO(k, threshold))).min() > 0.1


@torch.no_grad()
def test_that_of_three_particles_too() -> None:
    assert right_on_average(World.of_steps(3), FIVO(3)) < 1e-9


@pytest.mark.parametrize("k", [1, 2])
def test_with_nothing_resampled_it_is_the_bound_of_whole_sequences(k: int) -> None:
    world, exact = World.of_steps(3), World.of_steps(3).bound(k)
    torch.testing.assert_close(expected_bound(world, FIVO(k, 0.0)), exact, atol=1e-9, rtol=0)
    gradient = world.gradient(world.bound(k))
    for group, got in expected_gradient(world, FIVO(k, 0.0)).items():
        torch.testing.assert_close(got, gradient[group], atol=1e-9, rtol=0)


@torch.no_grad()
def test_resampling_is_an_advantage_where_q_does_not_look_ahead() -> None:
    world = World.of_steps(3)
    never, sometimes, always = (expected_bound(world, FIVO(2, threshold)) for threshold in (0.0, 0.6, 1.0))
    assert (sometimes > never + 0.01).all()
    assert (always > never + 0.01).all()


class Foresight(Follower):
    """q(z_t | x, z_<t) = p(z_t | x, z_<t) of bits, by listing."""

    def __init__(self, p: RecurrentGeneration) -> None:
        super().__init__()
        self.p, self.steps = (p,), p.recurrence.steps

    def look(self, memory: Tensor | None, before: Tensor | None, state: Tensor, x: Tensor, t: int) -> Tensor | None:
        return before if memory is None or before is None else torch.cat([memory, before], -1)

    def forward(self, state: Tensor, x: Tensor, memory: Tensor | None, t: int) -> Distribution:
        taus = all_bits((self.steps,)).view(-1, *[1] * (state.dim() - 1), self.steps)
        log_p = self.p[0].log_joint(x, taus.expand(-1, *state.shape[:-1], -1))  # [S, ...]
        known = taus.new_zeros(log_p.shape) if memory is None else (taus[..., :t] != memory).any(-1)
        log_p = log_p.masked_fill(known > 0, -torch.inf)
        one = taus[..., t] > 0
        up, down = (log_p.masked_fill(far, -torch.inf).logsumexp(0) for far in (~one, one))
        return Bits((up - down).unsqueeze(-1))


@torch.no_grad()
def test_where_q_looks_ahead_resampling_only_costs() -> None:
    """The exact posterior has weights that multiply to p(x), whatever is drawn, and filtering takes them apart."""
    torch.manual_seed(0)
    mean = torch.full((3, 2), 0.4)
    p = VRNN(num_latents=1, width=3).build(Bernoulli((1,)), BernoulliLikelihood(), BernoulliLikelihood(), mean).p
    assert isinstance(p, RecurrentGeneration)
    joint = scatter(JointBound(RecurrentInference(Foresight(p)), p), 5, 1.5)
    x = torch.tensor([[[1.0, 0], [0, 0], [1, 1]]]).double().expand(2000, -1, -1)
    log_p = p.log_joint(x[:1], all_bits((3,)).unsqueeze(1)).logsumexp(0)
    assert isinstance(joint.q, RecurrentInference)
    whole = filtering_bound(joint.q, p, x, 4, threshold=0.0)
    torch.testing.assert_close(whole, log_p.expand(2000))
    found = filtering_bound(joint.q, p, x, 4)
    assert found.mean() < log_p - 5 * found.std() / 2000**0.5


@attrs.frozen
class Filter(Estimator):
    """FIVO with every step in one place, but for what a mutant makes of it."""

    num_particles: int = attrs.field(default=2, validator=attrs.validators.ge(1))

    @property
    def unbiased(self) -> frozenset[str]:
        return frozenset() if self.num_particles > 1 else super().unbiased

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        q, p, k = joint.q, joint.p, self.num_particles
        assert isinstance(q, RecurrentInference)
        assert isinstance(p, RecurrentGeneration)
        state, total = p.recurrence.start(torch.Size([k, len(x)])), x.new_zeros(len(x))
        for t in range(p.recurrence.steps):
            z, log_q = (one.squeeze(0) for one in draw(q.step(state, x, None, t), 1, reparameterized=True))
            log_x, log_z = p.step(state, x, z, t)
            log_w = log_x + log_z - log_q
            last = t + 1 == p.recurrence.steps
            total = total + self.added(log_w, last)
            if not last:
                state = p.recurrence.after(state, z, x, t)
                state = self.kept(state, joint.choose(self.by(log_w.detach()), k))
        return Estimate(-total, total.detach(), None, "lower")

    def check(self, joint: JointBound, x: Tensor) -> None:
        FIVO().check(joint, x)

    def added(self, log_w: Tensor, last: bool) -> Tensor:
        return log_mean_exp(log_w)

    def by(self, log_w: Tensor) -> Tensor:
        return log_w

    def kept(self, state: Tensor, chosen: Tensor) -> Tensor:
        return state.gather(0, chosen.unsqueeze(-1).expand_as(state))


class Summed(Filter):
    def added(self, log_w: Tensor, last: bool) -> Tensor:
        return log_w.logsumexp(0)


class NotAveraged(Filter):
    """What a resampled particle weighed is counted on as its own."""

    def added(self, log_w: Tensor, last: bool) -> Tensor:
        return log_w.amax(0)


class LastTwice(Filter):
    def added(self, log_w: Tensor, last: bool) -> Tensor:
        return super().added(log_w, last) * (2 if last else 1)


class LastLeftOut(Filter):
    def added(self, log_w: Tensor, last: bool) -> Tensor:
        return 0 * log_w[0] if last else super().added(log_w, last)


class WeightsOfNobody(Filter):
    """Particles go on as they were, though their weights were dealt anew."""

    def kept(self, state: Tensor, chosen: Tensor) -> Tensor:
        return state


class ByNoWeight(Filter):
    def by(self, log_w: Tensor) -> Tensor:
        return torch.zeros_like(log_w)


class BySquaredWeight(Filter):
    def by(self, log_w: Tensor) -> Tensor:
        return 2 * log_w


class SaysItIsUnbiased(Filter):
    @property
    def unbiased(self) -> frozenset[str]:
        return frozenset({"q", "generator"})


def breaks(estimator: type[Estimator], name: str) -> bool:
    law = next(law for law in EXAMS["estimator"].laws if law.name == name)
    return not law.judge(lambda: EXAMS["estimator"].prepare(estimator)).held


@torch.no_grad()
def test_the_one_written_out_is_right() -> None:
    world = World.of_steps(3)
    assert right_on_average(world, Filter()) < 1e-9
    torch.testing.assert_close(expected_bound(world, Filter()), expected_bound(world, FIVO(2)))


@pytest.mark.parametrize(
    ("mutant", "law"),
    [
        (Summed, "bound_is_on_its_side"),
        (NotAveraged, "bound_is_on_its_side"),
        (LastTwice, "one_particle_is_the_elbo"),
        (LastLeftOut, "one_particle_is_the_elbo"),
    ],
)
def test_wrong_sums_break_laws(mutant: type[Estimator], law: str) -> None:
    assert breaks(mutant, law)


@pytest.mark.parametrize("mutant", [WeightsOfNobody, ByNoWeight, BySquaredWeight])
@torch.no_grad()
def test_wrong_choices_are_wrong_on_average(mutant: type[Estimator]) -> None:
    assert right_on_average(World.of_steps(3), mutant()) > 1e-3


def test_a_gradient_that_leaves_resampling_out_is_not_exact() -> None:
    assert breaks(SaysItIsUnbiased, "expected_gradient_is_exact")


class Unmasked(GRU):
    """The mask forgotten in padding."""

    def there(self, x: Tensor, t: int) -> Tensor | None:
        return None


@pytest.mark.parametrize("threshold", [0.0, 0.9, 1.0])
@torch.no_grad()
def test_padding_counts_for_nothing(threshold: float) -> None:
    joint, lengths = vrnn(flags=True), [2] * 3

    def bound(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return FIVO(5, threshold)(joint, x).surrogate

    zeros, ones = bound(padded(lengths, 0.0, STEPS)), bound(padded(lengths, 1.0, STEPS))
    torch.testing.assert_close(zeros, ones)
    joint.p.recurrence.steps = 2
    torch.testing.assert_close(bound(padded(lengths, 0.0, STEPS)), zeros)  # as if there were no more
    joint.p.recurrence.steps, joint.p.recurrence.__class__ = STEPS, Unmasked
    assert (bound(padded(lengths, 0.0, STEPS)) - zeros).abs().min() > 0.1


def test_draws_carry_gradients_to_q_and_through_the_states() -> None:
    joint, x = vrnn(), torch.ones(3, STEPS, 2).double()
    FIVO(4)(joint, x).surrogate.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in joint.parameters())


def test_a_canvas_is_filtered_too_with_what_q_remembers() -> None:
    torch.manual_seed(0)
    mean = torch.full((4, 4), 0.4)
    joint = DRAW(num_latents=2, steps=3).build(Gaussian((2,)), BernoulliLikelihood(), GaussianLikelihood(), mean)
    x = (torch.rand(5, 4, 4) < 0.5).float()
    FIVO().check(joint, x)
    assert FIVO(3)(joint, x).surrogate.isfinite().all()
    assert isinstance(joint.q, RecurrentInference)
    assert isinstance(joint.p, RecurrentGeneration)
    with torch.no_grad():  # where nothing is resampled, the same draws make the same weights
        torch.manual_seed(1)
        steps = filtering_bound(joint.q, joint.p, x, 6, lambda log_w: log_w.long(), threshold=0.0)
        torch.manual_seed(1)
        whole = joint.particles(x, 6).log_weights
    torch.testing.assert_close(steps, log_mean_exp(whole))


def test_who_has_no_recurrence_or_no_reals_is_refused() -> None:
    x = torch.ones(3, STEPS, 2).double()
    with pytest.raises(UsageError, match=r"reparameterized samples.*use vimco"):
        FIVO().check(vrnn(reals=False), x)
    with pytest.raises(UsageError, match="a recurrence that q and p share, and BitInference and Directed have none"):
        FIVO().check(World.of_bits().joint, World.of_bits().xs)
    for wrong in ({"num_particles": 0}, {"threshold": 1.5}, {"threshold": -0.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            attrs.evolve(FIVO(), **wrong)


def test_a_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = (np.random.default_rng(0).random((60, 4, 3)) < 0.4).astype(np.float32)
    np.savez(tmp_path / "data.npz", train=x[:40], valid=x[40:50], test=x[50:])
    words = ["--data", tmp_path / "data.npz", "--prior", "gaussian", "--estimator", "fivo", "--epochs", "2"]
    words += ["--num-particles", "20", "--run-dir"]
    small = ["--model.num-latents", "2", "--model.width", "4", "--estimator.num-particles", "3"]
    done = called(capsys, "run", "--model", "vrnn", *small, *words, tmp_path / "run", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)
    refused(
        called(capsys, "run", "--model", "mlp", *words, tmp_path / "other"),
        "fivo resamples between the steps of a recurrence",
    )
