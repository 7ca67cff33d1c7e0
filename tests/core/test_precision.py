"""Mixed precision: bfloat16 inside the networks of q and p while they train, and nowhere else."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from unibound import Directed, Inference, JointBound, UsageError
from unibound.distributions import Bits
from unibound.runs.precision import mix_precision
from unibound.testing.listing import gradients, parameter_groups, scatter
from unibound.testing.networks import BitGenerator
from unibound.testing.priors import Rates


class Wide(Inference):
    """q(tau | x) over eight bits, with a layer directly and two in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 50)
        self.others = nn.ModuleList([nn.Sequential(nn.Tanh(), nn.Linear(50, 50), nn.Tanh()), nn.Linear(50, 8)])

    def forward(self, x: Tensor) -> Distribution:
        outputs = self.first(x)
        for layer in self.others:
            outputs = layer(outputs)
        return Bits(outputs)


class Layered(Rates):
    """A prior with a linear layer, which is no layer of q or p(x | tau)."""

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape)
        self.layer = nn.Linear(8, 8)

    def log_prob(self, tau: Tensor) -> Tensor:
        return super().log_prob(tau) + self.layer(tau).sum(-1)


def wide() -> JointBound:
    return scatter(JointBound(Wide(), Directed(Layered((8,)), BitGenerator(8, 6))), 3, 0.4).float()


@pytest.fixture
def x() -> Tensor:
    return (torch.rand(40, 6, generator=torch.Generator().manual_seed(1)) < 0.4).float()


def log_weights(joint: JointBound, x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return joint.particles(x, 5).log_weights


def test_layers_compute_in_bfloat16_and_distributions_in_float32(x: Tensor) -> None:
    joint, seen = wide(), []
    mix_precision(joint)
    inner = [joint.q.others[0][1], joint.p.generator.network[0]]
    for layer in inner:
        layer.register_forward_hook(lambda _layer, _inputs, output: seen.append(output.dtype))
    particles = joint.particles(x, 5)
    assert seen == [torch.bfloat16] * 2
    posterior, likelihood = joint.q(x), joint.p.conditional(particles.tau)
    for distribution in (posterior, likelihood):
        assert torch.equal(distribution.logits, distribution.logits.bfloat16().float())
    for value in (posterior.logits, likelihood.logits, particles.tau, particles.log_q, particles.log_p):
        assert value.dtype == torch.float32


def test_log_weights_are_exact_for_the_rounded_outputs(x: Tensor) -> None:
    joint = wide()
    mix_precision(joint)
    particles = joint.particles(x, 5)
    exact = Bits(joint.q(x).logits.double()).log_prob(particles.tau)
    torch.testing.assert_close(particles.log_q.double(), exact, rtol=0, atol=1e-5)


def test_evaluation_is_the_same_to_the_bit(x: Tensor) -> None:
    plain, mixed = wide(), wide()
    mix_precision(mixed)
    assert not torch.equal(log_weights(plain, x), log_weights(mixed, x))
    assert torch.equal(log_weights(plain.eval(), x), log_weights(mixed.eval(), x))
    assert plain.state_dict().keys() == mixed.state_dict().keys()


def test_bound_and_gradient_are_close(x: Tensor) -> None:
    found = []
    for joint in (plain := wide(), mixed := wide()):
        if joint is mixed:
            mix_precision(mixed)
        tau = (torch.rand(5, 40, 8, generator=torch.Generator().manual_seed(2)) < 0.5).float()
        log_w = joint.p.log_joint(x, tau) - joint.q(x).log_prob(tau)  # [K, B]
        bound = log_w.logsumexp(0).mean()
        found.append((bound.item(), gradients(bound, parameter_groups(joint.parts()))))
    (exact, wanted), (rounded, got) = found
    assert rounded != exact
    assert rounded == pytest.approx(exact, abs=0.05)
    assert wanted.keys() == got.keys() == plain.parts().keys()
    for group in wanted:
        assert got[group].dtype == torch.float32
        assert (got[group] - wanted[group]).norm() < 0.02 * wanted[group].norm(), group


def test_the_prior_keeps_full_precision() -> None:
    plain, mixed = wide(), wide()
    mix_precision(mixed)
    tau = torch.rand(40, 8)
    assert torch.equal(plain.p.prior.log_prob(tau), mixed.p.prior.log_prob(tau))


def test_float64_is_left_alone(x: Tensor) -> None:
    plain, mixed = wide().double(), wide().double()
    mix_precision(mixed)
    assert torch.equal(log_weights(plain, x.double()), log_weights(mixed, x.double()))


def test_a_copy_calls_its_own_layers(x: Tensor) -> None:
    joint = wide()
    mix_precision(joint)
    copied = scatter(copy.deepcopy(joint), 4, 0.4).float()
    anew = scatter(wide(), 4, 0.4).float()
    mix_precision(anew)
    assert torch.equal(log_weights(copied, x), log_weights(anew, x))


class Outer(Inference):
    """q(tau | x) of another network, or of a layer that returns what it is given to."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Distribution:
        outputs = self.inner(x)
        return outputs if isinstance(outputs, Distribution) else Bits(outputs[1][0])


class Lazy(nn.Linear):
    """A layer that builds a distribution itself."""

    def forward(self, input: Tensor) -> Distribution:
        return Independent(Normal(super().forward(input), 1.0), 1)


def test_a_network_in_a_network_gives_a_float32_distribution(x: Tensor) -> None:
    outer = Outer(Wide())
    mix_precision(outer)
    logits = outer(x).logits
    assert logits.dtype == torch.float32
    assert torch.equal(logits, logits.bfloat16().float())


class Twins(nn.Linear):
    """A layer that returns several tensors, as recurrent ones do, which bfloat16 is not built for everywhere."""

    def forward(self, input: Tensor) -> tuple[Tensor, list[Tensor]]:
        return super().forward(input), [super().forward(input)]


def test_a_layer_may_return_several_tensors(x: Tensor) -> None:
    outer = Outer(Twins(6, 8))
    mix_precision(outer)
    assert outer(x).log_prob(torch.ones(40, 8)).dtype == torch.float32


def test_a_layer_that_returns_a_distribution_is_refused(x: Tensor) -> None:
    outer = Outer(Lazy(6, 8))
    mix_precision(outer)
    with pytest.raises(UsageError, match=r"Lazy returns Independent.*leave mixed_precision out"):
        outer(x)
    assert outer.eval()(x).log_prob(torch.ones(40, 8)).dtype == torch.float32
