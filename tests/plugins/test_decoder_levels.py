"""Model `decoder` over levels: pixels of grey and of color images, row by row, by any likelihood of them."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from running import called
from torch import Tensor
from unibound_plugins.estimators.iwae import IWAE
from unibound_plugins.likelihoods.categorical import Categorical
from unibound_plugins.likelihoods.gaussian import Gaussian as GaussianLikelihood
from unibound_plugins.likelihoods.levels import DiscretizedLogistic, LogisticMixture
from unibound_plugins.models.decoder import Decoder
from unibound_plugins.priors.gaussian import Gaussian

from unibound import JointBound, Likelihood, UsageError
from unibound.distributions.levels import RoundedLogistics
from unibound.draws import draw
from unibound.evaluation.evaluate import evaluate
from unibound.sequences import raster
from unibound.sequences.raster import Before, Block, Pixels
from unibound.support import values
from unibound.testing.laws.draws import NUM_DRAWS, follow_log_prob
from unibound.testing.listing import all_states, scatter

GREY, COLOR = (2, 2), (3, 1, 2)
CASES = [
    (DiscretizedLogistic(levels=3), GREY),
    (LogisticMixture(levels=3, num_components=2), GREY),
    (LogisticMixture(levels=3, num_components=2), (1, *GREY)),
    (Categorical(num_categories=3), GREY),
    (LogisticMixture(levels=3, num_components=2), COLOR),
    (DiscretizedLogistic(levels=2), COLOR),
    (Categorical(num_categories=3), COLOR),
]
cases = pytest.mark.parametrize(("likelihood", "shape"), CASES, ids=lambda case: str(case).partition("(")[0])


def pixels(likelihood: Likelihood, shape: tuple[int, ...], context: int = 3) -> Pixels:
    """In some contexts."""
    torch.manual_seed(0)
    made = scatter(Pixels.net(likelihood, shape, 3, 1), 2, 0.7)
    outputs = made.last.weight.shape[0]
    hidden = torch.randn(context, 3).double()
    return Pixels(made, likelihood, shape, hidden, torch.randn(context, outputs, *shape[-2:]).double())


def total(made: Pixels) -> Tensor:
    """log of the sum of p over every image, in each context."""
    states = all_states(made.likelihood.support, tuple(made.event_shape)).double()
    states = states.unsqueeze(1).expand(-1, *made.batch_shape, *made.event_shape)
    return made.log_prob(states).logsumexp(0)


@cases
@torch.no_grad()
def test_all_images_sum_to_one(likelihood: Likelihood, shape: tuple[int, ...]) -> None:
    assert total(pixels(likelihood, shape)).abs().max() < 1e-10


@cases
@torch.no_grad()
def test_draws_follow_log_prob_and_are_scored_as_they_are_made(likelihood: Likelihood, shape: tuple[int, ...]) -> None:
    made = pixels(likelihood, shape)
    x, log_p = draw(made, NUM_DRAWS)
    assert likelihood.support.check(x).all()
    torch.testing.assert_close(log_p, made.log_prob(x))
    before = torch.nn.utils.parameters_to_vector(made.raster.parameters())

    def log_prob(parameters: Tensor) -> Tensor:
        torch.nn.utils.vector_to_parameters(parameters, made.raster.parameters())
        return made.log_prob(x)

    assert follow_log_prob(log_prob, before, "of each of 3 contexts")


def conditionals(made: Pixels, x: Tensor) -> Tensor:
    """log p of each element given those before it, in the order of pixels and of the channels of each [D].

    By sums over what comes later: of a tiny image, every completion of what is known is listed.
    """
    order = [(c, r, k) for r in range(x.shape[1]) for k in range(x.shape[2]) for c in range(x.shape[0])]
    states = all_states(made.likelihood.support, tuple(x.shape)).double()
    log_p = made.log_prob(states)
    known, marginal = torch.ones(len(states), dtype=torch.bool), []
    for c, r, k in order:
        known &= (states[:, c, r, k] - x[c, r, k]).abs() < 1e-6
        marginal.append(log_p[known].logsumexp(0))
    return torch.stack(marginal).diff(prepend=torch.zeros(1).double())


@torch.no_grad()
def test_what_comes_later_changes_nothing_before_it() -> None:
    """Of a pixel's own distribution, pixel by pixel and channel by channel: a later value moves no earlier term."""
    likelihood = LogisticMixture(levels=3, num_components=2)
    made = pixels(likelihood, (3, 3, 4), 1)
    torch.manual_seed(1)
    x, felt = torch.randint(3, (3, 3, 4)).double() / 2, 0
    said = made.raster(x)
    for later in range(12):
        row, column = divmod(later, 4)
        changed = x.clone()
        changed[:, row, column] = 1 - changed[:, row, column] / 2
        moved = (made.raster(changed) - said).abs().sum(0).flatten() > 0
        assert not moved[: later + 1].any()
        felt += bool(moved.any())
    assert felt >= 8  # of eleven: some units are off


@torch.no_grad()
def test_each_channel_depends_on_those_before_it_alone() -> None:
    """The first element's conditional is that of its pixel's first channel, and so on, all by listing."""
    made = pixels(LogisticMixture(levels=2, num_components=2), COLOR, 1)
    made = Pixels(made.raster, made.likelihood, COLOR)
    x = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0]).double().view(COLOR)
    terms = conditionals(made, x)
    assert terms.sum().item() == pytest.approx(made.log_prob(x).item())
    for index, (column, channel) in enumerate((k, c) for k in range(2) for c in range(3)):
        changed = x.clone()
        changed[channel, 0, column] = 1 - changed[channel, 0, column]
        other = conditionals(made, changed)
        torch.testing.assert_close(other[:index], terms[:index])
        assert other[index].exp().item() == pytest.approx(1 - terms[index].exp().item())


def seeing_itself(made: Pixels, _: pytest.MonkeyPatch) -> None:
    """Mask B where the first convolution needs mask A."""
    own = scatter(Before(made.raster.first.weight.shape[1], 3, raster.FIRST, itself=True), 2, 0.7)
    own.weight.data[..., -1, raster.FIRST] = 1.5
    made.raster.first = own


def seeing_later(made: Pixels, _: pytest.MonkeyPatch) -> None:
    """Mask of the units between forgotten."""
    for parameter in made.raster.parameters():
        parameter.data.abs_()  # no unit is off
    block = made.raster.blocks[0]
    assert isinstance(block, Block)
    block.see.mask.fill_(1.0)


def channels_off_by_one(made: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each channel moved by itself, and not only by those before it."""
    located, read, now = RoundedLogistics._located, RoundedLogistics._pixels, list[Tensor]()

    def wrong(self: RoundedLogistics, channel: int, before: list[Tensor]) -> Tensor:
        return located(self, channel, before) + 1.5 * now[channel]

    def pixels_of(self: RoundedLogistics, value: Tensor) -> Tensor:
        lead = value.shape[: value.dim() - len(self.event_shape)]
        now[:] = (2 * value - 1).reshape(*lead, 1, self.channels, -1).unbind(-2)
        return read(self, value)

    monkeypatch.setattr(RoundedLogistics, "_located", wrong)
    monkeypatch.setattr(RoundedLogistics, "_pixels", pixels_of)


@pytest.mark.parametrize(
    ("mutant", "shape"),
    [(seeing_itself, GREY), (seeing_itself, COLOR), (seeing_later, GREY), (channels_off_by_one, COLOR)],
)
@torch.no_grad()
def test_wrong_masks_die(
    mutant: Callable[[Pixels, pytest.MonkeyPatch], None], shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = pixels(LogisticMixture(levels=3, num_components=2), shape)
    mutant(made, monkeypatch)
    assert total(made).abs().max() > 1e-3


def built(likelihood: Likelihood, shape: tuple[int, ...]) -> JointBound:
    torch.manual_seed(0)
    recipe = Decoder(num_latents=2, hidden=(8,), net="pixelcnn", maps=8, blocks=1)
    return recipe.build(Gaussian((2,)), likelihood, GaussianLikelihood(), torch.full(shape, 0.5))


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1)])
def test_images_with_channels_last_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="move the channels to the front"):
        built(LogisticMixture(), shape)


@pytest.mark.parametrize(
    ("likelihood", "shape"), [(LogisticMixture(levels=4, num_components=2), (3, 3, 4)), (Categorical(4), (3, 4))]
)
def test_it_learns_that_rows_are_of_one_color(likelihood: Likelihood, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    joint, listed = built(likelihood, shape), values(likelihood.support)
    assert listed is not None
    x = torch.tensor(listed)[torch.randint(4, (80, *shape[:-1], 1))].expand(-1, *shape)
    optimizer = torch.optim.Adam(joint.parameters(), lr=0.03)
    for _ in range(100):
        optimizer.zero_grad()
        IWAE(2)(joint, x).surrogate.mean().backward()
        optimizer.step()
    found = evaluate(joint, x, num_particles=20, posterior="none")
    assert found.nll < 0.6 * math.prod(shape) * math.log(4)
    dreams = joint.p.dream(50)[0]
    assert dreams[..., 1:].isclose(dreams[..., :-1]).double().mean() > 0.7


def test_a_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).integers(0, 4, (60, 3, 2, 2)).astype(np.int64)
    np.savez(tmp_path / "data.npz", train=x[:40], valid=x[40:50], test=x[50:], levels=4)
    words = ["--data", tmp_path / "data.npz", "--model", "decoder", "--model.net", "pixelcnn", "--epochs", "2"]
    words += [
        "--model.maps",
        "4",
        "--likelihood",
        "logistic_mixture",
        "--likelihood.levels",
        "4",
        "--prior",
        "gaussian",
    ]
    words += ["--estimator", "iwae", "--num-particles", "10", "--json", "--run-dir", tmp_path / "run"]
    done = called(capsys, "run", *words)
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["bits_per_dim"] == pytest.approx(result["nll"] / 12 / math.log(2))
    assert result["latent_nats"] >= 0
    assert result["datum_nats"] > 0
