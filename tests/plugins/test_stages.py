"""Stages of a dream: trajectories gone back in many steps or few, and a canvas while it is painted on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import called
from torch import Tensor
from torch.distributions import Distribution
from unibound_plugins.likelihoods.bernoulli import Bernoulli as BernoulliLikelihood
from unibound_plugins.likelihoods.gaussian import Gaussian as GaussianLikelihood
from unibound_plugins.models.diffusion import Diffusion
from unibound_plugins.models.draw import DRAW
from unibound_plugins.models.mlp import MLP
from unibound_plugins.models.vdm import VDM
from unibound_plugins.priors.bernoulli import Bernoulli
from unibound_plugins.priors.gaussian import Gaussian

from unibound import JointBound, Model, UsageError
from unibound.distributions import Bits
from unibound.runs.pictures import BORDER, SMALLEST, trajectories
from unibound.sequences.noise import Binomial, Noise, Normals
from unibound.sequences.trajectory import Reverse, StepGeneration
from unibound.testing.listing import all_bits, scatter
from unibound.testing.verdict import FALSE_ALARM

RATE, BETAS = 0.8, torch.tensor([0.1, 0.3, 0.2, 0.4, 0.5]).double()
COUNT = 20_000


class Knowing(Reverse):
    """p(x_0 | x_t) of a bit of known rate: gone back by it, every x_t has the distribution that q gives it."""

    def __init__(self, noise: Noise) -> None:
        super().__init__()
        self.noise = noise

    def first(self, noisy: Tensor, t: Tensor) -> Distribution:
        return Bits(torch.logit(torch.tensor(RATE).double()) + self.noise.own(noisy, t))

    def later(self, noisy: Tensor, t: Tensor, first: Distribution) -> Distribution:
        return self.noise.guess(noisy, first, t)


class OneStepOnly(Binomial):
    """A leap over several steps by the noise of its last."""

    def leap(self, s: int, t: int) -> Binomial:
        return Binomial(torch.stack([1 - self.kept[s], self.betas[t - 1]]))


def errors(noise: Noise, steps: int) -> Tensor:
    """Of each stage, by how many standard errors its rate of ones is off that of q [S + 1]."""
    torch.manual_seed(0)
    prior = Bernoulli((1,)).double()
    kept = noise.kept[torch.linspace(len(noise), 0, steps + 1).round().long()]
    rates = kept * RATE + (1 - kept) / 2
    prior.logits.data.fill_(rates[0].logit().item())
    found = StepGeneration(prior, Knowing(noise), noise, (1,)).stages(COUNT, steps)
    assert found.shape == (steps + 1, COUNT, 1)
    return (found.mean((1, 2)) - rates).abs() / (rates * (1 - rates) / COUNT).sqrt()


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_every_stage_has_the_distribution_of_q_in_any_number_of_steps(steps: int) -> None:
    assert errors(Binomial(BETAS), steps).max() < FALSE_ALARM


def test_a_leap_of_a_single_step_dies() -> None:
    assert errors(OneStepOnly(torch.full((8,), 0.2).double()), 2).max() > 2 * FALSE_ALARM


@pytest.mark.parametrize("kind", [Binomial, Normals])
def test_a_leap_is_the_same_in_two_steps(kind: type[Noise]) -> None:
    noise, x, step = kind(BETAS), torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double()
    leap = noise.leap(2, 5)
    for one, other in ((1, 2), (2, 5)):
        got, expected = (made.at(x, torch.tensor([t])) for made, t in ((leap, one), (noise, other)))
        torch.testing.assert_close(got.log_prob(step), expected.log_prob(step))


def built(model: Model, reads: type = BernoulliLikelihood, prior: type = Bernoulli) -> JointBound:
    torch.manual_seed(0)
    shape = (2, 1)
    return scatter(model.build(prior(model.prior_shape(shape)), reads(), reads(), torch.full(shape, 0.4)), 1)


@pytest.mark.parametrize("terms", [False, True])
def test_a_trajectory_ends_in_data_of_p(terms: bool) -> None:
    whole, joint = (built(Diffusion(steps=3, terms=each, hidden=(4,))) for each in (False, terms))
    torch.manual_seed(1)
    x = joint.p.stages(COUNT)[-1]
    states, taus = all_bits((2, 1)), all_bits((6,)).unsqueeze(1).expand(-1, 4, -1)
    chance = whole.p.log_joint(states, taus).logsumexp(0).exp()
    seen = torch.stack([(x == state).flatten(1).all(1).double().mean() for state in states])
    assert ((seen - chance).abs() / (chance * (1 - chance) / COUNT).sqrt()).max() < FALSE_ALARM


def test_a_trajectory_in_continuous_time_takes_as_many_steps_as_you_like() -> None:
    joint = built(VDM(first=-4.0, hidden=(4,), sample_steps=6), GaussianLikelihood, Gaussian)
    for steps, count in ((None, 6), (1, 1), (30, 30)):
        assert joint.p.stages(7, steps).shape == (count + 2, 7, 2, 1)


def test_a_canvas_is_blank_at_first_and_done_at_last() -> None:
    joint = built(DRAW(num_latents=1, steps=3, width=3))
    torch.manual_seed(0)
    stages = joint.p.stages(5)
    torch.manual_seed(0)
    tau = torch.cat([joint.p.prior.sample(5) for _ in range(3)], -1)
    torch.testing.assert_close(stages[-1], joint.p.conditional(tau).mean)
    torch.testing.assert_close(stages[0], joint.p.recurrence.blank.sigmoid().view(2, 1).expand(5, 2, 1))
    assert (stages[1:] != stages[:-1]).all()
    with pytest.raises(UsageError, match="in 3 steps, not in 2"):
        joint.p.stages(5, 2)


@pytest.mark.parametrize("steps", [0, 6, -1])
def test_steps_that_there_are_not_are_refused(steps: int) -> None:
    joint = built(Diffusion(steps=5, hidden=(4,)))
    with pytest.raises(UsageError, match=f"gone back in 1 to 5, not in {steps}"):
        joint.p.stages(1, steps)
    joint = built(VDM(hidden=(4,)), GaussianLikelihood, Gaussian)
    if steps < 1:
        with pytest.raises(UsageError, match=f"at least one step, not {steps}"):
            joint.p.stages(1, steps)


def test_data_that_are_drawn_at_once_have_no_stages() -> None:
    with pytest.raises(UsageError, match="draws data at once"):
        built(MLP(num_latents=1, hidden=(2,))).p.stages(1)


@pytest.mark.parametrize(("num_stages", "shown"), [(3, [0, 1, 2]), (10, [*range(10)]), (28, [*range(0, 28, 3)])])
def test_a_row_of_the_picture_is_a_trajectory(num_stages: int, shown: list[int]) -> None:
    joint = built(MLP(num_latents=1, hidden=(2,)))
    numbers = torch.arange(num_stages).view(-1, 1, 1, 1) * 100.0 + torch.arange(4).view(1, -1, 1, 1)
    joint.p.stages = lambda count: numbers.expand(-1, count, 2, 1)
    rows = trajectories(joint, 4).view(4, len(shown), 2)
    assert rows[..., 0].tolist() == [[100.0 * stage + row for stage in shown] for row in range(4)]


def test_a_run_and_its_report_show_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = (np.random.default_rng(0).random((30, 2, 2)) < 0.4).astype(np.float32)
    np.savez(tmp_path / "data.npz", train=x[:20], valid=x[20:25], test=x[25:])
    words = ["--data", tmp_path / "data.npz", "--prior", "bernoulli", "--epochs", "1", "--num-particles", "5"]
    words += ["--model", "diffusion", "--model.steps", "3", "--model.hidden", "4", "--estimator", "rws"]
    assert called(capsys, "run", *words, "--run-dir", tmp_path / "run").code == 0
    with Image.open(tmp_path / "run" / "trajectories.png") as image:
        assert image.size == (4 * (SMALLEST + BORDER) + BORDER, 10 * (SMALLEST + BORDER) + BORDER)
    assert called(capsys, "report", tmp_path / "run").code == 0
    assert "stages of a trajectory" in (tmp_path / "run" / "report.html").read_text()
