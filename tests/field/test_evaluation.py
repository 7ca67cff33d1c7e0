"""What evaluation says of a model that is not normalized, of data none of its own, and of what is no number."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unibound import JointBound, Layered, Upward, UsageError, registries
from unibound.distributions import Bits
from unibound.evaluation.certify import certify_joint
from unibound.evaluation.evaluate import evaluate, evaluate_all, normalize
from unibound.networks import Generator, Inference
from unibound.runs.train import Training
from unibound.settings.convert import choice
from unibound.settings.records import Stage

Exact = Callable[[JointBound, Tensor], float]


class Up(Inference):
    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.layer = nn.Linear(fan_in, fan_out)

    def forward(self, x: Tensor) -> Bits:
        return Bits(self.layer(x))


class Down(Generator):
    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.layer = nn.Linear(fan_in, fan_out)

    def forward(self, tau: Tensor) -> Bits:
        return Bits(self.layer(tau))


def test_an_unnormalized_prior_is_normalized_without_being_asked(mlp: Callable, bits: Tensor, listed: Exact) -> None:
    joint = mlp(bits)
    found = evaluate(joint, bits, num_particles=3000)
    exact = listed(joint, bits)
    assert found.log_z is not None
    assert found.nll == pytest.approx(exact, abs=0.02)
    assert exact in found.interval


def test_so_is_one_too_large_to_be_listed_and_says_how(bits: Tensor) -> None:
    prior = registries()["prior"]["rbm"]((6,), num_hidden=24)
    wide = registries()["prior"]["rbm"]((24,), num_hidden=24)
    for one, sided in ((prior, "equal"), (wide, "upper")):
        x = (torch.rand(50, *one.event_shape) < 0.5).float()
        plain = registries()["likelihood"]["bernoulli"]()
        joint = registries()["model"]["identity"]().build(one, plain, plain, x.mean(0))
        found = evaluate(joint, x, num_particles=1)
        assert found.log_z is not None
        assert found.log_z.side == sided
        # At first an rbm is all but uniform: every bit costs log 2.
        assert found.nll == pytest.approx(one.event_shape.numel() * math.log(2), abs=0.3)


def test_a_deep_belief_net_is_normalized_by_its_top(bits: Tensor) -> None:
    prior = registries()["prior"]["rbm"]((3,), num_hidden=5, init_scale=1.0)
    net = JointBound(Upward([Up(6, 4), Up(4, 3)], (4, 3)), Layered(prior, [Down(4, 6), Down(3, 4)], (4, 3)))
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 7)
    with torch.no_grad():
        tops = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
        log_z = (-prior.free_energy(tops)).double().logsumexp(0)
        log_joint = net.p.log_joint(bits, states.unsqueeze(1).expand(-1, len(bits), -1)).double()
        exact = -(log_joint.logsumexp(0) - log_z).mean().item()
    found = evaluate(net, bits, num_particles=5000)
    assert found.nll == pytest.approx(exact, abs=0.05)
    assert exact in found.interval


def test_none_is_no_normalizer(mlp: Callable, bits: Tensor) -> None:
    joint = mlp(bits)
    exact = normalize(joint, registries()["partition_estimator"]["exact"](), bits)
    for given in ([None], [exact, None]):
        with pytest.raises(UsageError, match="RBM lacks its log Z"):
            evaluate_all(joint, bits, given, num_particles=10)
    normalized = mlp(bits, "bernoulli")
    assert evaluate_all(normalized, bits, [None], num_particles=10)[0].log_z is None


STRANGERS = {
    "spins": (lambda x: 2 * x - 1, "spins"),
    "grey": (lambda x: (x + 0.5) / 2, "binarize"),
    "counts": (lambda x: 2 * x, "likelihood"),
    "nan": (lambda x: x.masked_fill(torch.arange(x.numel()).view(x.shape) == 0, math.nan), "not finite"),
    "one bad value, in the last datum": (
        lambda x: x.masked_fill(torch.arange(x.numel()).view(x.shape) == x.numel() - 1, 1.5),
        "likelihood",
    ),
}


@pytest.mark.parametrize("door", ["particles", "evaluate", "certify_joint", "Training", "estimator"])
@pytest.mark.parametrize("kind", STRANGERS)
def test_what_is_no_bit_is_refused_at_every_door(door: str, kind: str, mlp: Callable, bits: Tensor) -> None:
    joint = mlp(bits, "bernoulli")
    make, cure = STRANGERS[kind]
    x = make(bits)
    estimator = registries()["estimator"]["vimco"](num_particles=2)
    doors = {
        "particles": lambda: joint.particles(x, 2),
        "evaluate": lambda: evaluate(joint, x, num_particles=2),
        "certify_joint": lambda: certify_joint(joint, x, bits, num_particles=2),
        "Training": lambda: Training(joint, [Stage()], x, batch_size=10),
        "estimator": lambda: estimator(joint, x),
    }
    with pytest.raises(UsageError, match="over bits, but the data hold") as caught:
        doors[door]()
    assert cure in str(caught.value)
    assert "\n" not in str(caught.value)


def test_identity_refuses_spins_under_an_rbm(bits: Tensor) -> None:
    known = registries()
    plain = known["likelihood"]["bernoulli"]()
    joint = known["model"]["identity"]().build(known["prior"]["rbm"]((6,)), plain, plain, bits.mean(0))
    with pytest.raises(UsageError, match="spins"):
        evaluate(joint, 2 * bits - 1, num_particles=1)
    with pytest.raises(UsageError, match="spins"):
        Training(joint, [Stage(choice("estimator", "cd"))], 2 * bits - 1, batch_size=10)


@pytest.mark.parametrize("prior", ["bernoulli", "rbm"])
@pytest.mark.parametrize("part", ["q", "generator", "prior"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_the_reason(
    prior: str, part: str, bad: float, mlp: Callable, bits: Tensor
) -> None:
    joint = mlp(bits, prior)
    with torch.no_grad():
        next(joint.parts()[part].parameters()).view(-1)[0] = bad
    for x in (bits, bits[:1]):
        if prior == "rbm" and part == "prior":
            with pytest.raises(UsageError, match="not finite: the prior's parameters overflowed"):
                evaluate(joint, x, num_particles=10)
            continue
        found = evaluate(joint, x, num_particles=10)
        assert not math.isfinite(found.nll)
        assert found.conclusion.startswith("no claim: the NLL is")
        assert f"of {len(x)} data); the model's weights" in found.conclusion
        assert found.interval.high is None
