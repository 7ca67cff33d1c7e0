"""Model `decoder`: bits of an image that see those before them and no other, and draws that compute each unit once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from running import called, refused
from torch import Tensor
from unibound_plugins.likelihoods.bernoulli import Bernoulli as BernoulliLikelihood
from unibound_plugins.models.decoder import Decoder
from unibound_plugins.priors.bernoulli import Bernoulli

from unibound.draws import draw
from unibound.runs.train import Training
from unibound.sequences.raster import Before, Block, Pixels, Raster
from unibound.settings import sources
from unibound.testing.laws.draws import NUM_DRAWS, follow_log_prob
from unibound.testing.listing import all_bits, scatter


def net(height: int = 2, width: int = 3, blocks: int = 2) -> Raster:
    torch.manual_seed(0)
    return scatter(Raster(1, height, width, 1, 3, blocks), 2)


def predicted(made: Raster) -> Pixels:
    """In three contexts."""
    contexts = torch.randn(3, 3).double(), torch.randn(3, 1, made.height, made.width).double()
    return Pixels(made, BernoulliLikelihood(), (made.height, made.width), *contexts)


def sees(made: Raster) -> Tensor:
    """Which logit depends on which bit, by its gradient [D, D], where no unit is off."""
    for parameter in made.parameters():
        parameter.data.abs_()
    x = torch.rand(1, made.height, made.width).double()
    slopes = torch.autograd.functional.jacobian(made, x)
    assert isinstance(slopes, Tensor)
    return slopes.view(x.numel(), x.numel()).ne(0)


@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (1, 6), (5, 6), (9, 2)])
def test_no_logit_sees_its_own_bit_or_a_later_one(shape: tuple[int, int]) -> None:
    assert not sees(net(*shape)).triu().any()


def test_a_logit_sees_all_before_it_but_the_blind_spot() -> None:
    """The first convolution reaches three columns to the right, and each row further up one more."""
    size = 9
    seen = sees(net(size, size, blocks=size)).view(size, size, size, size)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    for row in range(size):
        for column in range(size):
            above = (rows < row) & (columns - column <= 3 + (row - rows - 1))
            assert torch.equal(seen[row, column], above | ((rows == row) & (columns < column)))


@pytest.mark.parametrize("shape", [(1, 1), (2, 3)])
@torch.no_grad()
def test_a_draw_is_scored_as_one_pass_does(shape: tuple[int, int]) -> None:
    made = predicted(net(*shape))
    x, log_p = draw(made, NUM_DRAWS)
    torch.testing.assert_close(log_p, made.log_prob(x))
    states = all_bits(shape).unsqueeze(1).expand(-1, 3, *shape)
    torch.testing.assert_close(made.log_prob(states).logsumexp(0), torch.zeros(3).double())
    before = torch.nn.utils.parameters_to_vector(made.raster.parameters())

    def log_prob(parameters: Tensor) -> Tensor:
        torch.nn.utils.vector_to_parameters(parameters, made.raster.parameters())
        return made.log_prob(x)

    assert follow_log_prob(log_prob, before, "of each of 3 contexts")


def seeing_itself() -> Raster:
    """Mask B from the first convolution on."""
    made = net()
    own = scatter(Before(1, 3, 3, itself=True), 2)
    own.weight.data[:, :, -1, 3:] = 2.0
    made.first = own
    return made


def seeing_later() -> Raster:
    """A mask that was forgotten between units."""
    made = net()
    block = made.blocks[0]
    assert isinstance(block, Block)
    block.see.mask.fill_(1.0)
    return made


@pytest.mark.parametrize("mutant", [seeing_itself, seeing_later])
@torch.no_grad()
def test_wrong_masks_die(mutant: Callable[[], Raster]) -> None:
    made = predicted(mutant())
    x, log_p = draw(made, 200)
    assert (log_p - made.log_prob(x)).abs().max() > 0.01
    states = all_bits((2, 3)).unsqueeze(1).expand(-1, 3, 2, 3)
    assert made.log_prob(states).logsumexp(0).abs().max() > 1e-6
    assert sees(made.raster).triu().any()


@torch.no_grad()
def test_a_draw_computes_each_unit_once() -> None:
    """Though it looks at a layer for every bit, at the one place where something is due."""
    made, looked = net(3, 4), []
    for layer in made.modules():
        if isinstance(layer, Before):
            layer.register_forward_hook(lambda *_: looked.append("whole"))
            at = layer.at

            def one(seen: Tensor, row: int, column: int, units: Tensor, layer=layer, at=at) -> Tensor:
                looked.append((layer, row, column))
                return at(seen, row, column, units)

            layer.at = one
    made.draw(10, lambda said: (said > 0).double(), None, None)
    assert len(looked) == len(set(looked)) == 3 * 4 * 6
    assert "whole" not in looked


@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4)])
def test_it_learns_what_pixels_say_of_each_other(shape: tuple[int, ...]) -> None:
    """Stripes of random offset: a bit is what that two to its left is not."""
    torch.manual_seed(0)
    offset, columns = torch.randint(4, (100, 1, 1)), torch.arange(4)
    x = ((columns + offset) % 4 < 2).float().expand(-1, 3, 4).reshape(-1, *shape)
    recipe = Decoder(num_latents=2, hidden=(8,), net="pixelcnn", maps=8, blocks=0)
    joint = recipe.build(Bernoulli((2,)), BernoulliLikelihood(), BernoulliLikelihood(), x.mean(0))
    values = {"estimator": {"name": "vimco", "num_particles": 2}, "epochs": 15, "optimizer": {"learning_rate": 0.03}}
    list(Training(joint, sources.resolve([sources.Layer(values)]).stages, x, batch_size=20).epochs())
    stripes = joint.p.dream(200)[0].view(200, 3, 4)
    right = (stripes[..., 2:] != stripes[..., :-2]).all(-1).all(-1) & (stripes == stripes[:, :1]).all(-1).all(-1)
    assert right.double().mean() > 0.8


@pytest.mark.parametrize(
    ("shape", "flags", "culprit"),
    [
        ((4,), ["--model.net", "pixelcnn"], "a datum is of shape [4]; use a net for vectors"),
        ((6, 2, 2), ["--model.net", "pixelcnn"], "a datum is of shape [6 x 2 x 2]; move the channels to the front"),
        ((6, 7, 7), ["--model.net", "pixelcnn"], "a datum is of shape [6 x 7 x 7]; use a net for vectors"),
        ((2, 2), ["--likelihood", "discretized_logistic"], "use bernoulli, or net pixelcnn for images"),
        ((2, 2), ["--model.net", "pixelrnn"], "pixelrnn"),
        ((2, 2), ["--model.net", "pixelcnn", "--model.maps", "0"], "maps"),
    ],
)
def test_bad_settings_are_refused_in_one_line(
    shape: tuple[int, ...], flags: list[str], culprit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = (np.random.default_rng(0).random((30, *shape)) < 0.4).astype(np.float32)
    np.savez(tmp_path / "data.npz", train=x[:20], valid=x[20:25], test=x[25:])
    words = ["--data", tmp_path / "data.npz", "--model", "decoder", *flags, "--run-dir", tmp_path / "run"]
    refused(called(capsys, "run", *words), culprit)
    assert not (tmp_path / "run").exists()
