"""The kernels on a CPU against hand-written in-place loops; each row is a time relative to the first row.

What is raced is compared first: equal values where nothing is drawn, and elsewhere equal means over chains that begin
in the same states.
"""

from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from unibound import kernels
from unibound.kernels import reference
from unibound.testing import by_hand
from unibound.testing.by_hand import Machine
from unibound.testing.verdict import FALSE_ALARM

Systems = dict[str, Callable[[], Tensor]]

PATHS = {"reference": reference}
if find_spec("numba"):
    from unibound.kernels import compiled

    PATHS["compiled"] = compiled


def assert_equal_on_average(systems: Systems) -> None:
    """One value per chain [M] of each, whose means differ by no more than draws let them."""
    first, *others = (system().double() for system in systems.values())
    for other in others:
        difference = first - other
        assert difference.mean().abs() < FALSE_ALARM * difference.std() / len(difference) ** 0.5


def bench_ais(race):
    """One block of temperatures of the paper's size: 200 x 400, 500 chains."""
    machine = Machine.random(200, 400, 500)
    betas = torch.linspace(0.3, 0.31, 21, dtype=torch.float64)
    arguments = (machine.v, *machine.parameters, torch.zeros(200))
    up: Systems = {
        "hand": lambda: by_hand.ais(machine, betas.tolist(), shared_exp=False),
        "hand, one exp": lambda: by_hand.ais(machine, betas.tolist(), shared_exp=True),
    }
    down: Systems = {}
    for name, path in PATHS.items():
        up[name] = lambda path=path: path.rbm_ais(*arguments, betas)[1]
        down[f"{name}, reverse"] = lambda path=path: path.rbm_reverse_ais(*arguments, betas.flip(0))[1]
    assert_equal_on_average(up)
    assert_equal_on_average(down)
    race(up | down, rounds=15)


@pytest.mark.parametrize("steps", [1, 25])
@pytest.mark.parametrize(("visible", "hidden"), [(784, 500), (200, 400)])
def bench_gibbs(race, visible, hidden, steps):
    """The negative phase of PCD: 100 chains."""
    machine = Machine.random(visible, hidden, 100)
    systems: Systems = {"hand": lambda: by_hand.gibbs(machine, steps).sum(1)}
    for name, path in PATHS.items():
        systems[name] = lambda path=path: path.rbm_gibbs(machine.v, *machine.parameters, steps).sum(1)
    assert_equal_on_average(systems)
    race(systems)


@pytest.mark.parametrize(("visible", "hidden", "count"), [(784, 500, 200), (200, 400, 1000)])
def bench_free_energy(race, visible, hidden, count):
    """Value and gradient of the free energy of bits."""
    machine = Machine.random(visible, hidden, count)
    parameters = [tensor.requires_grad_() for tensor in machine.parameters]

    def step(path):
        value = path.rbm_free_energy(machine.v, *parameters)
        return value.detach(), *torch.autograd.grad(value.mean(), parameters)

    for path in PATHS.values():
        torch.testing.assert_close(step(path), step(reference), rtol=1e-5, atol=2e-4)
    race({name: lambda path=path: step(path) for name, path in PATHS.items()})


@pytest.mark.parametrize("shape", [(10, 100, 784), (50, 100, 200)])
@pytest.mark.parametrize("broadcast", ["bits", "logits"])
def bench_bernoulli_log_prob(race, shape, broadcast):
    """Forward and backward; of K particles' logits for one datum, or one posterior for K particles."""
    logits = torch.randn(shape if broadcast == "bits" else shape[1:], requires_grad=True)
    bits = (torch.rand(shape[1:] if broadcast == "bits" else shape) < 0.5).float()

    def plain():
        wide, target = torch.broadcast_tensors(logits, bits)
        return -cross_entropy(wide, target, reduction="none").sum(-1)

    def ours():
        return kernels.bernoulli_log_prob(logits, bits)

    torch.testing.assert_close(ours(), plain(), rtol=1e-5, atol=1e-5)
    race({"torch": lambda: plain().sum().backward(), "unibound": lambda: ours().sum().backward()})
