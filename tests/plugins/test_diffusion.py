"""Models `diffusion` and `vdm`: whole or in terms they bound the same, and what is refused."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import called, refused
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from unibound_plugins.estimators.iwae import IWAE
from unibound_plugins.estimators.vimco import VIMCO
from unibound_plugins.likelihoods.bernoulli import Bernoulli as BernoulliLikelihood
from unibound_plugins.likelihoods.gaussian import Gaussian as GaussianLikelihood
from unibound_plugins.models.diffusion import Diffusion
from unibound_plugins.models.vdm import VDM, MomentGeneration, Schedule
from unibound_plugins.priors.bernoulli import Bernoulli
from unibound_plugins.priors.gaussian import Gaussian

from unibound import Estimator, JointBound, UsageError
from unibound.distributions import Bits
from unibound.evaluation.evaluate import evaluate
from unibound.runs.pictures import samples
from unibound.runs.train import Training
from unibound.sequences.noise import Binomial, Normals, sure
from unibound.sequences.trajectory import StepGeneration
from unibound.settings import sources
from unibound.testing.listing import all_bits, scatter

STEPS, SIZE = 3, 2


def bits(terms: bool) -> JointBound:
    """Two bits and three steps, with the same parameters whole and in terms."""
    torch.manual_seed(0)
    model = Diffusion(steps=STEPS, terms=terms, hidden=(4,))
    mean = torch.full((SIZE,), 0.4)
    joint = model.build(Bernoulli((SIZE,)), BernoulliLikelihood(), BernoulliLikelihood(), mean)
    return scatter(joint, 1, scale=0.7)


def every_term() -> Tensor:
    """Every step, x_t and x_T [S, 1, 1 + 2 D]."""
    t, here, last = torch.cartesian_prod(torch.arange(1, STEPS + 1), *[torch.arange(2**SIZE)] * 2).T
    listed = all_bits((SIZE,))
    return torch.cat([t.unsqueeze(1).double(), listed[here], listed[last]], 1).unsqueeze(1)


def expected_terms(joint: JointBound, p: StepGeneration, xs: Tensor) -> Tensor:
    """E of one term for every datum [N], nats, by listing."""
    tau, noise = every_term(), joint.p.noise
    t, end = tau[..., 0].long(), torch.full((1, 1), STEPS)
    log_q = noise.at(xs, t).log_prob(tau[..., 1 : 1 + SIZE]) + noise.at(xs, end).log_prob(tau[..., 1 + SIZE :])
    return (log_q.exp() / STEPS * p.log_joint(xs, tau.expand(-1, len(xs), -1))).sum(0)


def whole_bound(xs: Tensor) -> Tensor:
    taus = all_bits((SIZE * STEPS,))
    found = [bits(terms=False).divergence(x.unsqueeze(0), torch.zeros(1), taus) for x in xs]
    return torch.tensor([-one.bound for one in found]).double()


def test_terms_have_the_mean_of_the_whole() -> None:
    joint, xs = bits(terms=True), all_bits((SIZE,))
    assert joint.p.reverse.state_dict().keys() == bits(terms=False).p.generators[0].owned.state_dict().keys()
    torch.testing.assert_close(expected_terms(joint, joint.p, xs), whole_bound(xs))


class MissingWeight(StepGeneration):
    """Terms that stand for one step instead of all of them."""

    def log_joint(self, x: Tensor, tau: Tensor) -> Tensor:
        size = self.shape.numel()
        term = self.term(x, tau[..., 1 : 1 + size], tau[..., 0].long())
        return super().log_joint(x, tau) + (len(self.noise) - 1) * term


class DivergenceAtOne(StepGeneration):
    """A first step that is scored as the others are: by a divergence from what is no distribution of x_0."""

    def term(self, x: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        later = t.clamp(min=2)
        q = self.noise.back(noisy, x, later)
        return self.noise.divergence(q, self.reverse.later(noisy, later, self.reverse.first(noisy, t)))


@pytest.mark.parametrize("mutant", [MissingWeight, DivergenceAtOne])
def test_wrong_terms_have_another(mutant: type[StepGeneration]) -> None:
    joint, xs = bits(terms=True), all_bits((SIZE,))
    wrong = mutant(joint.p.prior, joint.p.reverse, joint.p.noise, (SIZE,))
    assert (expected_terms(joint, wrong, xs) - whole_bound(xs)).abs().min() > 0.01


@pytest.mark.parametrize("kind", [Binomial, Normals])
def test_steps_compose_and_can_be_undone(kind: type) -> None:
    """q(x_t | x_{t-1}) q(x_{t-1} | x_0) = q(x_{t-1} | x_t, x_0) q(x_t | x_0)."""
    noise, x = kind(torch.tensor([0.1, 0.3, 0.6]).double()), torch.tensor([[1.0, 0.0]]).double()
    before, after = torch.tensor([[0.0, 1.0]]).double(), torch.tensor([[1.0, 1.0]]).double()
    for step in (2, 3):
        t = torch.tensor([step])
        forth = noise.step(before, t).log_prob(after) + noise.at(x, t - 1).log_prob(before)
        back = noise.back(after, x, t).log_prob(before) + noise.at(x, t).log_prob(after)
        torch.testing.assert_close(forth, back)


def test_a_guess_is_the_mean_over_what_it_was() -> None:
    noise, noisy = Binomial(torch.tensor([0.2, 0.4]).double()), all_bits((1,))
    logits, t = torch.tensor([[0.7], [-1.1]]).double(), torch.tensor([2, 2])
    chance = logits.sigmoid()
    ones = [noise.back(noisy, torch.full((2, 1), value).double(), t).mean for value in (0.0, 1.0)]
    torch.testing.assert_close(noise.guess(noisy, Bits(logits), t).mean, (1 - chance) * ones[0] + chance * ones[1])
    assert sure(torch.tensor(0.5)) == pytest.approx(math.log(3))


class Known(nn.Module):
    """What x is, given z_t, where data are N(0, 1)."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.schedule.scales(t)[0] * z


def normals(kind: type[MomentGeneration] = MomentGeneration, steps: int = 0) -> JointBound:
    """Data N(0, 1) stay so at every step: with the best guess the bound lacks only what T steps cost."""
    reads = GaussianLikelihood()
    joint = VDM(first=-9.0, last=9.0, steps=steps).build(Gaussian((1,)), reads, reads, torch.zeros(1)).double()
    joint.p.denoiser, joint.p.__class__ = Known(joint.p.schedule), kind
    return joint


def excess(joint: JointBound) -> float:
    """Nats by which the bound on the NLL of data N(0, 1) exceeds it."""
    torch.manual_seed(0)
    x = torch.randn(500, 1).double()
    found = evaluate(joint, x, num_particles=300)
    assert found.side == "upper"
    return found.nll + Normal(0.0, 1.0).log_prob(x.float()).mean().item()


def test_a_normal_diffusion_that_knows_its_data_is_tight() -> None:
    joint = normals()
    assert abs(excess(joint)) < 0.05
    drawn = joint.p.dream(2000)[0]
    assert drawn.std().item() == pytest.approx(1, abs=0.1)


class MomentDivergenceAtZero(MomentGeneration):
    """An end at the data that is scored by a divergence of z_0, and no likelihood of x."""

    def log_joint(self, x: Tensor, tau: Tensor) -> Tensor:
        first = tau[..., 1 + self.center.numel() : 1 + 2 * self.center.numel()]
        flat, zero = self.flat(x), torch.zeros_like(tau[..., 0])
        guess = self.schedule.noisy(self.denoiser(first, zero), zero)
        instead = kl_divergence(self.schedule.noisy(flat, zero).expand(guess.batch_shape), guess)
        return super().log_joint(x, tau) - self.likelihood(first).log_prob(flat) - instead


def test_a_divergence_at_the_end_of_a_moment_bounds_something_else() -> None:
    """Off by the density of what noise of scale exp(-9/2) leaves open."""
    assert excess(normals(MomentDivergenceAtZero)) > 1


class MomentMissingWeight(MomentGeneration):
    """One step that stands for itself, not for all T."""

    def loss(self, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        return super().loss(x, z, t) / max(self.steps, 1)


class MomentMissingSlope(MomentGeneration):
    """A moment that counts the same whatever gamma does there."""

    def loss(self, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
        return super().loss(x, z, t) / self.schedule.slope(t)


def off_by(p: MomentGeneration, steps: int) -> float:
    """How far, relatively, losses are off T times the divergence of a step back that knows x from p's."""
    torch.manual_seed(0)
    x, z = torch.randn(2, 40, 1).double()
    end = torch.arange(1, 41) % steps + 1  # of the steps that moments lie in
    t, s = end.double() / steps, (end - 1).double() / steps
    knowing = copy.copy(p)
    knowing._modules = p._modules | {"denoiser": Given(x)}
    exact = steps * kl_divergence(knowing.back(z, t, s), p.back(z, t, s))
    return ((p.loss(x, z, t - 0.5 / steps) - exact).abs() / exact).max().item()


class Given(nn.Module):
    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.x


def test_a_moment_counts_for_all_steps() -> None:
    assert off_by(normals(steps=7).p, 7) < 1e-9
    assert off_by(normals().p, 100_000) < 1e-3  # in continuous time there are as many as you like
    assert off_by(normals(MomentMissingWeight, steps=7).p, 7) > 0.8
    assert off_by(normals(MomentMissingSlope).p, 100_000) > 0.8


@pytest.mark.parametrize("estimator", [IWAE(num_particles=2), VIMCO(num_particles=2)], ids=["iwae", "vimco"])
def test_terms_are_refused_where_they_are_not_averaged(estimator: Estimator) -> None:
    with pytest.raises(UsageError, match="one term of tau at a time"):
        estimator(bits(terms=True), all_bits((SIZE,)))


def test_an_evaluation_of_terms_is_their_mean_and_claims_no_lower_end() -> None:
    torch.manual_seed(0)
    joint, xs = bits(terms=True), all_bits((SIZE,)).repeat(100, 1)
    found = evaluate(joint, xs, num_particles=200)
    assert found.nll == pytest.approx(-whole_bound(all_bits((SIZE,))).mean().item(), abs=0.05)
    assert (found.side, found.gap, found.terms) == ("upper", None, True)
    assert found.interval.low is None
    assert "only means mean anything" in found.conclusion
    more = evaluate(joint, xs, num_particles=2000)
    assert abs(more.nll - found.nll) < 0.05  # and no tighter


@pytest.mark.parametrize("model", ["diffusion", "terms", "vdm"])
def test_it_learns(model: str) -> None:
    torch.manual_seed(1)
    x = (torch.randint(2, (60, 1)) * torch.ones(60, 4)).float()
    values: dict[str, Any] = {"estimator": {"name": "sgvb", "num_particles": 4}, "epochs": 25}
    values["optimizer"] = {"learning_rate": 0.02}
    if model == "vdm":
        x = x + 0.1 * torch.randn(60, 4)
        recipe, prior, reads = VDM(hidden=(16,), first=-4.0), Gaussian((4,)), GaussianLikelihood()
    else:
        recipe = Diffusion(steps=5, terms=model == "terms", hidden=(16,))
        prior, reads = Bernoulli((4,)), BernoulliLikelihood()
    joint = recipe.build(prior, reads, reads, x.mean(0))
    if model == "diffusion":
        values["estimator"] = {"name": "rws", "num_particles": 4}
    before = evaluate(joint, x, num_particles=50).nll
    list(Training(joint, sources.resolve([sources.Layer(values)]).stages, x, batch_size=20).epochs())
    assert evaluate(joint, x, num_particles=50).nll < before - 0.5
    assert samples(joint, 4).shape[-1] == 4


def data(folder: Path) -> Path:
    x = (np.random.default_rng(0).random((30, 4)) < 0.4).astype(np.float32)
    np.savez(folder / "data.npz", train=x[:20], valid=x[20:25], test=x[25:])
    return folder / "data.npz"


BITS = ["--model", "diffusion", "--prior", "bernoulli"]
REALS = ["--model", "vdm", "--prior", "gaussian", "--likelihood", "gaussian"]


@pytest.mark.parametrize(
    ("flags", "culprit"),
    [
        ([*BITS, "--model.steps", "2", "--model.betas", "0.1,0.2"], "does not end in noise, but with 72% of x left"),
        ([*BITS, "--model.steps", "2", "--model.betas", "0.9,1.5"], "each beta must lie in (0, 1), but one is 1.5"),
        ([*BITS, "--model.steps", "2", "--model.betas", "0.9,0"], "each beta must lie in (0, 1), but one is 0"),
        ([*BITS, "--model.steps", "3", "--model.betas", "0.9,0.9"], "3 steps need as many betas, not 2"),
        ([*BITS[:2], "--prior", "gaussian"], "the prior is over reals"),
        ([*BITS, "--model.terms", "--estimator", "vimco"], "one term of tau at a time"),
        ([*REALS, "--model.last", "1"], "does not end in noise"),
        ([*REALS, "--model.first", "0.5"], "begins in noise"),
        ([*REALS[:4], "--likelihood", "bernoulli"], "vdm is of reals"),
    ],
)
def test_bad_settings_are_refused_in_one_line(
    flags: list[str], culprit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", data(tmp_path), *flags, "--run-dir", tmp_path / "run"]
    words += [] if "--estimator" in flags else ["--estimator", "sgvb" if "vdm" in flags else "rws"]
    refused(called(capsys, "run", *words), culprit)
    assert not (tmp_path / "run").exists()


def test_the_end_of_a_run_says_what_a_term_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", data(tmp_path), *BITS, "--model.terms", "--estimator", "sgvb", "--epochs", "1"]
    found = called(capsys, "run", *words, "--num-particles", "20", "--run-dir", tmp_path / "run")
    assert found.code == 0, found
    assert "only means mean anything" in " ".join(found.out.split())


def test_times_are_spread_evenly_and_each_is_uniform() -> None:
    made = bits(terms=True).q(all_bits((SIZE,)))
    torch.manual_seed(0)
    tau = made.sample((75,))  # 300 draws of 3 steps
    counts = tau[..., 0].flatten().long().bincount()[1:]
    assert (counts - 100).abs().max() <= 1
    first = torch.stack([made.sample((1,))[0, 0, 0] for _ in range(600)])
    assert (first.long().bincount()[1:] - 200).abs().max() < 50
