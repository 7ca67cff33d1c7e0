"""Model `dequantized`: log2 n bits under a logistic prior, masses that sum to one, bounds below them, and mutants."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from running import called, refused
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import logsigmoid
from unibound_plugins.estimators.iwae import IWAE
from unibound_plugins.estimators.sgvb import SGVB
from unibound_plugins.estimators.vimco import VIMCO
from unibound_plugins.likelihoods.bernoulli import Bernoulli as BernoulliLikelihood
from unibound_plugins.likelihoods.gaussian import Gaussian as GaussianLikelihood
from unibound_plugins.models import dequantized
from unibound_plugins.models.dequantized import Dequantized, found, located
from unibound_plugins.priors.bernoulli import Bernoulli
from unibound_plugins.priors.gaussian import Gaussian

from unibound import Estimator, JointBound, Prior, UsageError
from unibound.distributions import Logistic
from unibound.distributions.flattening import flatten
from unibound.draws import draw
from unibound.evaluation.evaluate import evaluate
from unibound.support import real
from unibound.testing import examine_model
from unibound.testing.listing import scatter
from unibound.weights import log_mean_exp


class StandardLogistic(Prior):
    """p(tau) of independent standard logistics, under which sigmoid(tau) is uniform."""

    support = real

    def distribution(self) -> Distribution:
        return Independent(Logistic(torch.zeros(self.event_shape), torch.ones(())), len(self.event_shape))

    def log_prob(self, tau: Tensor) -> Tensor:
        return (logsigmoid(tau) + logsigmoid(-tau)).flatten(-len(self.event_shape)).sum(-1)

    def sample(self, count: int) -> Tensor:
        return self.distribution().sample((count,))


def built(levels: int, noise: str, shape: tuple[int, ...], prior: Callable[..., Prior] = Gaussian) -> JointBound:
    torch.manual_seed(0)
    model = Dequantized(levels, noise, (5,))  # pyright: ignore[reportArgumentType]
    return model.build(prior(shape), BernoulliLikelihood(), GaussianLikelihood(), torch.full(shape, 0.4)).double()


def images(levels: int, count: int, *shape: int) -> Tensor:
    return torch.randint(levels, (count, *shape), generator=torch.Generator().manual_seed(1)).double() / (levels - 1)


def test_bytes_under_a_logistic_prior_are_eight_bits_whatever_they_are() -> None:
    joint, x = built(256, "uniform", (3, 4), StandardLogistic), images(256, 20, 3, 4)
    x[0], x[1] = 0.0, 1.0
    log_w = joint.particles(x, 50).log_weights
    torch.testing.assert_close(log_w, torch.full_like(log_w, -12 * math.log(256)), rtol=1e-12, atol=0)
    assert evaluate(joint, x, num_particles=5, posterior="none").bits_per_dim == pytest.approx(8.0)


def mass(joint: JointBound, level: int, count: int) -> float:
    """p(x) of one element by quadrature over the noise: the integral of p(tau) p(x | tau) dtau, and not q's weights."""
    u = (torch.arange(20_000).double() + 0.5) / 20_000
    tau = ((level + u) / count).logit()
    density = joint.p.log_joint(torch.tensor([level / (count - 1)]).double(), tau.unsqueeze(1)).exp()
    return (density * count / ((level + u) * (count - level - u))).mean().item()


@pytest.mark.parametrize("noise", ["uniform", "variational"])
@pytest.mark.parametrize("count", [2, 5])
@torch.no_grad()
def test_masses_sum_to_one_and_q_bounds_each(noise: str, count: int) -> None:
    joint = scatter(built(count, noise, (1,), lambda shape: Gaussian(shape, covariance="diagonal")), 3, 0.6)
    masses = torch.tensor([mass(joint, level, count) for level in range(count)]).double()
    assert masses.sum().item() == pytest.approx(1.0, abs=1e-4)  # of a rule with so many steps, in the tails
    tau, step = torch.linspace(-25, 25, 250_001).double().view(-1, 1, 1), 50 / 250_000
    x = torch.arange(count).double().unsqueeze(1) / (count - 1)
    log_q, log_p = joint.q(x).log_prob(tau), joint.p.log_joint(x, tau)  # [S, count]
    torch.testing.assert_close(step * log_q.exp().sum(0), torch.ones(count).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(step * log_p.exp().sum(0), masses, atol=1e-3, rtol=0)
    inside = log_q > -math.inf
    assert torch.equal(inside, log_p > -math.inf)
    bound = step * (log_q.exp() * torch.where(inside, log_p - log_q, 0.0)).sum(0)
    assert (bound < masses.log() + 5e-4).all()  # as far as the rule is right


def test_what_rounds_to_no_level_of_x_has_no_mass() -> None:
    joint, x = built(4, "uniform", (2,)), torch.tensor([[0.0, 2 / 3]]).double()
    tau = torch.tensor([[[-2.0, 0.5]], [[-2.0, -0.5]], [[0.5, 0.5]]]).double()
    log_p, log_q = joint.p.conditional(tau).log_prob(x), joint.q(x).log_prob(tau)
    assert log_p.squeeze(1).tolist() == [0.0, -math.inf, -math.inf]
    assert log_q.isinf().squeeze(1).tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [2, 17, 256, 65_536])
def test_the_way_back_leads_back_and_slopes_are_derivatives(count: int, dtype: torch.dtype) -> None:
    level = torch.tensor([0, 1, count // 2, count - 2, count - 1]).to(dtype).unsqueeze(1)
    s = torch.linspace(-4, 4, 41, dtype=dtype).requires_grad_()
    tau, slope = located(level, s.expand(5, -1), count)
    back, again, known = found(tau, level, count)
    assert known.all()
    near = 1e4 * count * torch.finfo(dtype).eps
    if near < 1:
        torch.testing.assert_close(back, s.expand(5, -1), atol=near, rtol=0)
        torch.testing.assert_close(again, slope, atol=near, rtol=0)
    for row, expected in zip(tau, slope, strict=True):
        (got,) = torch.autograd.grad(row.sum(), s, retain_graph=True)
        torch.testing.assert_close(got.log(), expected.detach(), atol=2e-5, rtol=1e-4)


def test_draws_at_the_edges_of_intervals_keep_their_weights() -> None:
    """In single precision, where a draw next to an edge may round to the other side of it."""
    torch.manual_seed(0)
    joint, x = built(256, "uniform", (1000,), StandardLogistic).float(), images(256, 20, 1000).float()
    log_w = joint.particles(x, 50).log_weights  # a million draws
    assert log_w.isfinite().all()
    far = torch.tensor([-60.0, -20.0, 20.0, 60.0])
    for level in (0.0, 7.0, 254.0, 255.0):
        tau, slope = located(torch.tensor(level), far, 256)
        *_, known = found(tau, torch.tensor(level), 256)
        assert tau.isfinite().all()
        assert slope.isfinite().all()
        assert known.all()


def test_dreams_are_levels_with_the_frequencies_of_their_masses() -> None:
    torch.manual_seed(0)
    joint = scatter(built(4, "uniform", (1,), lambda shape: Gaussian(shape, covariance="diagonal")), 3, 0.6)
    x, tau = joint.p.dream(20_000)
    assert joint.p.conditional(tau).log_prob(x).eq(0).all()
    seen = torch.bincount((x * 3).round().long().flatten(), minlength=4) / 20_000
    exact = torch.tensor([mass(joint, level, 4) for level in range(4)])
    assert ((seen - exact).abs() < 5 * (exact * (1 - exact) / 20_000).sqrt() + 1e-4).all()


def no_jacobian(level: Tensor, inside: Tensor, count: int) -> tuple[Tensor, Tensor]:
    tau, slope = located(level, inside, count)
    return tau, torch.zeros_like(slope)


def no_levels(level: Tensor, inside: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Densities in place of masses."""
    tau, slope = located(level, inside, count)
    return tau, slope - math.log(count)


def other_sign(level: Tensor, inside: Tensor, count: int) -> tuple[Tensor, Tensor]:
    tau, slope = located(level, inside, count)
    return tau, -slope


@pytest.mark.parametrize("mutant", [no_jacobian, no_levels, other_sign])
def test_a_wrong_jacobian_dies(mutant: Callable[..., tuple[Tensor, Tensor]], monkeypatch: pytest.MonkeyPatch) -> None:
    joint, x = built(5, "uniform", (1,), StandardLogistic), torch.arange(5).double().unsqueeze(1) / 4
    with torch.no_grad():
        right = joint.particles(x, 4000).log_weights
        monkeypatch.setattr(dequantized, "located", mutant)
        wrong = joint.particles(x, 4000).log_weights
    assert log_mean_exp(right).logsumexp(0).abs() < 1e-9
    assert log_mean_exp(wrong).logsumexp(0).abs() > 0.2


def test_two_levels_sit_the_exam() -> None:
    assert [verdict for verdict in examine_model(Dequantized(2)) if not verdict.held] == []


@pytest.mark.parametrize("estimator", [SGVB(2), IWAE(2, "stl"), IWAE(2, "dreg")], ids=["sgvb", "stl", "dreg"])
def test_variational_noise_tightens_the_bound(estimator: Estimator) -> None:
    """The prior finds one end of each interval likelier, and noise learns it; that which is uniform cannot."""
    torch.manual_seed(0)
    narrow = Normal(torch.tensor([1.0, -1.0]), 0.2)
    x = (narrow.sample((100,)).sigmoid() * 8).floor() / 7
    joint = built(8, "variational", (2,), lambda shape: Gaussian(shape, covariance="diagonal")).float()
    with torch.no_grad():
        joint.p.prior.mean.copy_(narrow.loc)
        joint.p.prior.log_scale.fill_(math.log(0.2))
    optimizer = torch.optim.Adam(joint.q.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        estimator(joint, x).surrogate.mean().backward()
        optimizer.step()
    plain = JointBound(built(8, "uniform", (2,)).q.float(), joint.p)
    with torch.no_grad():
        learned, uniform = (SGVB(200)(one, x).bound.mean() for one in (joint, plain))
        truth = log_mean_exp(plain.particles(x, 2000).log_weights).mean()
    assert uniform + 0.1 < learned < truth + 0.01


def test_draws_are_scored_as_they_are_made() -> None:
    joint, x = scatter(built(6, "variational", (3,)), 4, 0.5), images(6, 10, 3)
    tau, log_q = draw(joint.q(x), 30, reparameterized=True)
    torch.testing.assert_close(log_q, joint.q(x).log_prob(tau))
    assert VIMCO(3)(joint, x).surrogate.isfinite().all()


def test_flattened_noise_looks_further_inside_and_nowhere_else() -> None:
    joint, x = built(6, "variational", (3,)), images(6, 10, 3)
    flat = flatten(joint.q(x), 4.0)
    assert flat is not None
    tau, log_q = draw(flat, 300)
    assert joint.p.conditional(tau).log_prob(x).eq(0).all()
    assert (joint.q(x).log_prob(tau) - log_q).exp().mean(0).sub(1).abs().max() < 1


def test_bits_for_latents_are_refused() -> None:
    with pytest.raises(UsageError, match="makes reals of levels, but its latents are bits"):
        Dequantized(4).build(Bernoulli((3,)), BernoulliLikelihood(), BernoulliLikelihood(), torch.full((3,), 0.4))
    with pytest.raises(ValueError, match="levels"):
        Dequantized(levels=1)


def test_a_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).integers(0, 6, (60, 4)).astype(np.int64)
    np.savez(tmp_path / "data.npz", train=x[:40], valid=x[40:50], test=x[50:], levels=6)
    words = ["--data", tmp_path / "data.npz", "--model", "dequantized", "--epochs", "2", "--num-particles", "20"]
    words += ["--prior", "gaussian", "--estimator", "iwae", "--estimator.num-particles", "3", "--json", "--run-dir"]
    done = called(capsys, "run", *words, tmp_path / "run", "--model.levels", "6", "--model.noise", "variational")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["nll_side"] == "upper"
    assert result["bits_per_dim"] == pytest.approx(result["nll"] / 4 / math.log(2))
    refused(called(capsys, "run", *words, tmp_path / "other"), "model dequantized", "256 levels", "set its levels to 6")
