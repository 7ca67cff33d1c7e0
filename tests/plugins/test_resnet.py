"""Residual networks: as large as the paper says, for images of any size, and saved to the last bit."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from unibound_plugins.data_sets.digits import Digits
from unibound_plugins.estimators.autoencoder import Autoencoder
from unibound_plugins.estimators.vimco import VIMCO
from unibound_plugins.likelihoods.bernoulli import Bernoulli as Bits
from unibound_plugins.likelihoods.gaussian import Gaussian as Normals
from unibound_plugins.models.resnet import Block, ResNet
from unibound_plugins.priors.bernoulli import Bernoulli

from unibound import JointBound, UsageError
from unibound.runs.train import Training
from unibound.settings.records import Choice, Stage

BITS = Bits()
SHAPES = [(28, 28), (8, 8), (13, 5), (3, 12, 9), (1, 6, 6)]


def build(x_shape: tuple[int, ...], likelihood=BITS, **settings) -> JointBound:
    torch.manual_seed(0)
    model = ResNet(**{"num_latents": 7} | settings)
    mean = torch.linspace(0.1, 0.9, torch.Size(x_shape).numel()).view(x_shape)
    return model.build(Bernoulli(model.prior_shape(x_shape)), likelihood, BITS, mean)


def images(count: int, x_shape: tuple[int, ...]) -> Tensor:
    return (torch.rand(count, *x_shape, generator=torch.Generator().manual_seed(1)) < 0.4).float()


@pytest.mark.parametrize("x_shape", SHAPES, ids=str)
@pytest.mark.parametrize("likelihood", [BITS, Normals()], ids=str)
def test_shapes(x_shape, likelihood):
    joint, x = build(x_shape, likelihood, maps=(4, 5)), images(3, x_shape)
    particles = joint.particles(x, 2)
    assert particles.tau.shape == (2, 3, 7)
    assert particles.log_weights.shape == (2, 3)
    for leading in ((), (4,), (2, 0), (5, 2, 3)):
        conditional = joint.p.conditional(torch.zeros(*leading, 7))
        assert (conditional.batch_shape, conditional.event_shape) == (leading, x_shape)


def test_a_prior_of_another_shape_is_refused():
    with pytest.raises(UsageError, match=r"latents of shape \[200\], but its prior events of shape \[2, 3\]"):
        ResNet(maps=(3,)).build(Bernoulli((2, 3)), BITS, BITS, torch.zeros(4, 4))


def test_stages_are_those_of_the_paper():
    joint, seen = build((28, 28), num_latents=200), []
    for module in joint.modules():
        if isinstance(module, Block):
            module.register_forward_hook(lambda _block, inputs, output: seen.append((inputs[0].shape, output.shape)))
    joint.particles(images(2, (28, 28)), 1)
    sizes = [(tuple(before[1:]), tuple(after[1:])) for before, after in seen]
    assert sizes == [
        ((1, 28, 28), (25, 14, 14)),
        ((25, 14, 14), (25, 14, 14)),
        ((25, 14, 14), (50, 7, 7)),
        ((50, 7, 7), (50, 7, 7)),
        ((50, 7, 7), (50, 4, 4)),
        ((50, 4, 4), (50, 4, 4)),
        ((50, 7, 7), (50, 7, 7)),
        ((50, 7, 7), (50, 7, 7)),
        ((50, 14, 14), (50, 14, 14)),
        ((50, 14, 14), (50, 14, 14)),
        ((50, 28, 28), (25, 28, 28)),
        ((25, 28, 28), (25, 28, 28)),
    ]
    widths = [(m.in_features, m.out_features) for m in joint.modules() if isinstance(m, nn.Linear)]
    assert widths == [(50 * 4 * 4, 200), (200, 200), (200, 200), (200, 50 * 4 * 4)]


def test_every_layer_is_weight_normalized_and_none_batch_normalized():
    joint = build((28, 28))
    layers = [m for m in joint.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    kernels = [m.kernel_size for m in layers if isinstance(m, nn.Conv2d)]
    assert kernels.count((3, 3)) == 2 * 12 + 1
    assert kernels.count((1, 1)) == 4  # three where the image is halved, one where the generator's maps change
    assert all(is_parametrized(layer, "weight") for layer in layers)
    assert not any(isinstance(module, nn.modules.batchnorm._NormBase) for module in joint.modules())


def test_upsampling_repeats_the_nearest_pixel():
    before, after = [], []
    for module in build((28, 28)).p.generator.modules():
        if isinstance(module, nn.Upsample):
            before.append(torch.rand(1, 2, 4, 4))
            after.append(module(before[-1]))
    assert [tuple(image.shape[2:]) for image in after] == [(7, 7), (14, 14), (28, 28)]
    rows = torch.arange(28) * 4 // 28
    assert torch.equal(after[-1], before[-1][:, :, rows][:, :, :, rows])


@pytest.mark.parametrize("x_shape", SHAPES, ids=str)
def test_gradients_reach_every_parameter(x_shape):
    joint = build(x_shape, Normals(), maps=(4, 5))
    particles = joint.particles(images(3, x_shape), 2)
    (particles.log_q.sum() + particles.log_p.sum()).backward()
    assert not [name for name, p in joint.named_parameters() if p.grad is None or not p.grad.any()]


def test_a_value_is_that_of_its_datum_alone():
    joint, x = build((28, 28), dropout=0.5).double().eval(), images(6, (28, 28)).double()
    tau = joint.q(x).sample((3,))
    whole, alone = joint.p.log_joint(x, tau), joint.p.log_joint(x[4:5], tau[:, 4:5])
    torch.testing.assert_close(whole[:, 4:5], alone)
    torch.testing.assert_close(joint.q(x).logits[4:5], joint.q(x[4:5]).logits)


def test_dropout_is_for_training():
    joint, x = build((8, 8), dropout=0.5), images(4, (8, 8))
    assert not torch.equal(joint.q(x).logits, joint.q(x).logits)
    joint.eval()
    assert torch.equal(joint.q(x).logits, joint.q(x).logits)


def test_inputs_are_centered():
    joint = build((8, 8), maps=(3,))
    seen = []
    joint.q.network.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    joint.q(torch.linspace(0.1, 0.9, 64).view(1, 8, 8))
    assert seen[0].shape == (1, 1, 8, 8)
    assert seen[0].abs().max() < 1e-6


@pytest.mark.parametrize(
    ("x_shape", "words"),
    [
        ((784,), r"resnet needs images.*a datum is of shape \[784\]; use mlp"),
        ((2, 3, 28, 28), r"resnet needs images.*shape \[2 x 3 x 28 x 28\]"),
        ((4, 4), r"3 maps halves an image 3 times, but one of 4 x 4 is too small for it; use fewer maps, or mlp"),
        ((28, 28, 1), r"channels in front, but a datum is of shape \[28 x 28 x 1\]; give \[C, H, W\]"),
    ],
    ids=str,
)
def test_what_is_no_image_or_too_small_is_refused(x_shape, words):
    with pytest.raises(UsageError, match=words) as refused:
        build(x_shape)
    assert "\n" not in str(refused.value)


def test_the_smallest_image():
    assert build((5, 5)).particles(images(2, (5, 5)), 1).log_weights.isfinite().all()


@pytest.mark.parametrize("settings", [{"maps": ()}, {"maps": (3, 0)}, {"hidden": 0}, {"dropout": 1.0}], ids=str)
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        ResNet(**settings)


def test_a_resumed_training_ends_with_the_same_bits():
    x = images(24, (8, 8))
    stage = Stage(estimator=Choice.of("estimator", VIMCO(num_particles=3)), epochs=3)

    def start() -> Training:
        torch.manual_seed(0)
        model = ResNet(num_latents=4, maps=(3, 4), hidden=10, dropout=0.1)
        joint = model.build(Bernoulli((4,)), BITS, BITS, x.mean(0))
        return Training(joint, [stage], x, batch_size=10)

    whole, first, second = start(), start(), start()
    torch.manual_seed(1)
    assert [epoch.epoch for epoch in whole.epochs()] == [1, 2, 3]
    torch.manual_seed(1)
    next(first.epochs())
    state, weights = copy.deepcopy(first.state_dict()), copy.deepcopy(first.joint.state_dict())
    torch.manual_seed(2)
    second.load_state_dict(state, weights)
    assert [epoch.epoch for epoch in second.epochs()] == [2, 3]
    wanted, got = whole.joint.state_dict(), second.joint.state_dict()
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    assert not any(torch.equal(wanted[name], weights[name]) for name in wanted if "original" in name)


@pytest.mark.parametrize("begins_at_the_mean", [True, False])
def test_codes_say_something_since_the_mean_image_is_not_theirs_to_draw(begins_at_the_mean):
    """Digits in a frame: latents that have to draw the frame are pushed to where nothing moves them any more."""
    x = nn.functional.pad((Digits().load().rows("train")[:] >= 0.5).float(), (6, 6, 6, 6))
    torch.manual_seed(0)
    joint = ResNet(num_latents=30, maps=(8, 16), hidden=50).build(Bernoulli((30,)), BITS, BITS, x.mean(0))
    if not begins_at_the_mean:
        nn.init.zeros_(joint.p.get_parameter("generator.shared"))
    optimizer = torch.optim.AdamW(joint.parameters(), 1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        Autoencoder()(joint, x[torch.randint(len(x), (50,))]).surrogate.mean().backward()
        optimizer.step()
    logits = joint.q(x[:200]).logits.detach()
    still_open, tell_data_apart = (logits.abs() < 1).float().mean(), logits.std(0).mean()
    assert bool(still_open > 0.5) is bool(tell_data_apart > 0.3) is begins_at_the_mean
