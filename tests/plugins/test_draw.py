"""Model `draw`: a normalized p whatever it paints with, KL step by step, and windows that see what they should."""

from pathlib import Path

import numpy as np
import pytest
import torch
from running import called, refused
from torch import Tensor
from unibound_plugins.likelihoods.bernoulli import Bernoulli as BernoulliLikelihood
from unibound_plugins.likelihoods.gaussian import Gaussian as GaussianLikelihood
from unibound_plugins.likelihoods.levels import DiscretizedLogistic, LogisticMixture
from unibound_plugins.models.draw import DRAW, Canvas, Window
from unibound_plugins.priors.bernoulli import Bernoulli
from unibound_plugins.priors.gaussian import Gaussian
from unibound_plugins.priors.rbm import RBM

from unibound import JointBound, Likelihood, Prior, UsageError
from unibound.draws import draw
from unibound.runs.train import Training
from unibound.settings import sources
from unibound.testing.listing import all_bits, scatter

SHAPE, STEPS = (2, 2), 3


def built(
    model: DRAW, prior: type[Prior] = Bernoulli, likelihood: Likelihood | None = None, shape: tuple[int, ...] = SHAPE
) -> JointBound:
    torch.manual_seed(0)
    reads = BernoulliLikelihood() if prior is Bernoulli else GaussianLikelihood()
    made = prior(model.prior_shape(shape))
    return scatter(model.build(made, likelihood or BernoulliLikelihood(), reads, torch.full(shape, 0.4)), 1)


def small(attention: bool) -> DRAW:
    return DRAW(num_latents=1, steps=STEPS, width=3, attention=attention, read=1, write=2)


def listed(joint: JointBound) -> tuple[Tensor, Tensor, Tensor]:
    """Every datum [N, 2, 2], every latent beside it [S, N, T], and log p(x, tau) [S, N]."""
    xs = all_bits(SHAPE)
    taus = all_bits((STEPS,)).unsqueeze(1).expand(-1, len(xs), -1)
    return xs, taus, joint.p.log_joint(xs, taus)


@pytest.mark.parametrize("attention", [False, True])
def test_p_is_normalized_and_dreams_of_itself(attention: bool) -> None:
    joint = built(small(attention))
    xs, taus, log_p = listed(joint)
    torch.testing.assert_close(log_p.flatten().logsumexp(0), torch.tensor(0.0).double())
    apart = joint.p.prior.log_prob(taus.unflatten(-1, (STEPS, 1))).sum(-1) + joint.p.conditional(taus).log_prob(xs)
    torch.testing.assert_close(log_p, apart)
    torch.manual_seed(0)
    dreamt, _ = joint.p.dream(20_000)
    seen = torch.stack([(dreamt == x).flatten(1).all(1).double().mean() for x in xs])
    chance = log_p.logsumexp(0).exp()
    error = (chance * (1 - chance) / 20_000).sqrt()
    assert ((seen - chance) / error).abs().max() < 4.5


class Peeking(Canvas):
    """A painter that sees the datum while it paints."""

    def after(self, state: Tensor, z: Tensor, x: Tensor, t: int) -> Tensor:
        canvas, hidden = self.parts(super().after(state, z, x, t))
        return torch.cat([canvas + 6 * x.flatten(-2) - 3, hidden], -1)


def test_a_painter_that_peeks_dies() -> None:
    joint = built(small(False))
    joint.p.recurrence.__class__ = Peeking
    _, _, log_p = listed(joint)
    assert log_p.flatten().logsumexp(0) > 0.1, "what peeks at the datum gives all data together more than one"


@pytest.mark.parametrize("attention", [False, True])
def test_each_step_costs_a_divergence_and_together_they_are_the_bound(attention: bool) -> None:
    joint = built(small(attention))
    xs, taus, log_p = listed(joint)
    log_q = joint.q(xs).log_prob(taus)
    terms = (log_q.exp() * joint.log_weight_terms(xs, taus)).sum(1)  # [1 + T, N]
    assert len(terms) == 1 + STEPS
    assert (terms[1:] < 0).all()
    torch.testing.assert_close(terms.sum(0), (log_q.exp() * (log_p - log_q)).sum(0))
    assert (terms.sum(0) < log_p.logsumexp(0)).all()


def test_q_sees_what_the_canvas_lacks() -> None:
    joint = built(small(False))
    x, tau = torch.ones(1, *SHAPE).double(), torch.ones(1, STEPS).double()
    before = joint.q(x).log_probs(tau)
    with torch.no_grad():
        joint.p.recurrence.paint.bias += 1.0  # so that from the second step on another picture is there
    after = joint.q(x).log_probs(tau)
    torch.testing.assert_close(after[0], before[0])
    assert ((after[1:] - before[1:]).abs() > 1e-4).all()


def test_q_remembers_what_it_saw() -> None:
    joint = built(small(False))
    x, tau = torch.ones(1, *SHAPE).double(), torch.ones(1, STEPS).double()
    with torch.no_grad():
        joint.q.follower.cell.weight_hh.zero_()
        joint.q.follower.cell.bias_hh.zero_()
    forgetful = joint.q(x).log_probs(tau)
    scatter(joint, 1)
    assert ((joint.q(x).log_probs(tau) - forgetful)[1:].abs() > 1e-4).all()


def test_a_draw_goes_through_the_recurrence_once() -> None:
    joint, calls = built(small(True)), []
    joint.p.recurrence.cell.register_forward_hook(lambda *_: calls.append("p"))
    joint.q.follower.cell.register_forward_hook(lambda *_: calls.append("q"))
    tau, log_q = draw(joint.q(torch.ones(4, *SHAPE).double()), 5)
    assert [calls.count("p"), calls.count("q")] == [STEPS - 1, STEPS]
    torch.testing.assert_close(log_q, joint.q(torch.ones(4, *SHAPE).double()).log_prob(tau))


def windowed(points: int, **place: float) -> Window:
    window = Window(1, points, 4, 6).double()
    names = ("down", "across", "log_variance", "log_stride", "log_strength")
    with torch.no_grad():
        window.place.weight.zero_()
        window.place.bias.copy_(torch.tensor([place.get(name, 0.0) for name in names]))
    return window


def test_a_sharp_window_sees_a_part_of_the_picture_and_paints_it_there() -> None:
    picture, hidden = torch.rand(2, 3, 4, 6).double(), torch.zeros(2, 1).double()
    strength, stride = float(np.log(2)), -float(np.log(5))  # filters of a stride of one: rows 1 and 2, columns 3 and 4
    window = windowed(2, across=0.4, log_variance=-6, log_stride=stride, log_strength=strength)
    part = picture[..., 1:3, 3:5]
    torch.testing.assert_close(window.read(hidden, picture).view(2, 3, 2, 2), 2 * part)
    painted = torch.zeros_like(picture)
    painted[..., 1:3, 3:5] = part / 2
    torch.testing.assert_close(window.write(hidden, part).view_as(picture), painted)


def test_filters_are_means_wherever_they_are_placed() -> None:
    window = scatter(Window(2, 3, 4, 6).double(), 0, 5.0)
    rows, columns, _ = window(torch.randn(7, 2, generator=torch.Generator().manual_seed(0)).double())
    torch.testing.assert_close(rows.sum(-1), torch.ones(7, 1, 3).double())
    torch.testing.assert_close(columns.sum(-1), torch.ones(7, 1, 3).double())


@pytest.mark.parametrize(
    ("shape", "likelihood"),
    [((5,), BernoulliLikelihood()), ((3, 4, 5), DiscretizedLogistic(levels=4)), ((4, 5), LogisticMixture(levels=4))],
    ids=["vectors", "color", "grey"],
)
def test_it_paints_whatever_the_likelihood_reads(shape: tuple[int, ...], likelihood: Likelihood) -> None:
    joint = built(DRAW(num_latents=2, steps=2, width=3, attention=len(shape) > 1), Gaussian, likelihood, shape)
    x = (torch.rand(4, *shape).double() * 3).round() / 3 if len(shape) > 1 else torch.rand(4, *shape).double().round()
    assert joint.particles(x, 3).log_weights.shape == (3, 4)
    assert joint.p.dream(2)[0].shape == (2, *shape)


@pytest.mark.parametrize(("name", "prior"), [("sgvb", Gaussian), ("vimco", Bernoulli)])
@pytest.mark.parametrize("attention", [False, True])
def test_it_learns(name: str, prior: type[Prior], attention: bool) -> None:
    model = DRAW(num_latents=2, steps=3, width=12, attention=attention, read=2, write=2)
    joint = built(model, prior, shape=(4, 4)).float()
    x = torch.zeros(60, 4, 4)
    for row, corner in zip(x, torch.randint(9, (60,), generator=torch.Generator().manual_seed(0)), strict=True):
        row[corner // 3 : corner // 3 + 2, corner % 3 : corner % 3 + 2] = 1.0

    def bound() -> float:
        torch.manual_seed(0)
        with torch.no_grad():
            return joint.particles(x, 20).log_weights.mean().item()

    before, values = bound(), {"estimator": {"name": name, "num_particles": 4}, "epochs": 30}
    values["optimizer"] = {"learning_rate": 0.03}
    list(Training(joint, sources.resolve([sources.Layer(values)]).stages, x, batch_size=20).epochs())
    assert bound() > before + 1.0


def test_what_it_cannot_paint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="must be normalized, and rbm is not"):
        DRAW().build(RBM((10,)), BernoulliLikelihood(), BernoulliLikelihood(), torch.zeros(SHAPE))
    with pytest.raises(UsageError, match="logisticmixture knows none"):
        DRAW().build(Gaussian((10,)), LogisticMixture(), GaussianLikelihood(), torch.zeros(3, 4, 4))
    x = (np.random.default_rng(0).random((30, 9)) < 0.4).astype(np.float32)
    np.savez(tmp_path / "data.npz", train=x[:20], valid=x[20:25], test=x[25:])
    words = ["--data", tmp_path / "data.npz", "--model", "draw", "--model.attention", "--prior", "gaussian"]
    refused(called(capsys, "run", *words, "--run-dir", tmp_path / "run"), "draw with attention looks at images")
