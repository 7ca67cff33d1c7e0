"""The kernels on a CPU against hand-written in-place loops; each row is a time relative to the first row."""

from importlib.util import find_spec

import hand_sweeps
import pytest
import torch
from hand_sweeps import Machine
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from unibound import kernels
from unibound.kernels import reference

PATHS = {"reference": reference}
if find_spec("numba"):
    from unibound.kernels import compiled

    PATHS["compiled"] = compiled


def bench_ais(race):
    """One block of temperatures of the paper's size: 200 x 400, 500 chains."""
    machine = Machine.random(200, 400, 500)
    betas = torch.linspace(0.3, 0.31, 21, dtype=torch.float64)
    base = torch.zeros(200)
    systems = {
        "hand": lambda: hand_sweeps.ais(machine, betas.tolist(), shared_exp=False),
        "hand, one exp": lambda: hand_sweeps.ais(machine, betas.tolist(), shared_exp=True),
    }
    for name, path in PATHS.items():
        systems[name] = lambda path=path: path.rbm_ais(machine.v, *machine.parameters, base, betas)
        systems[f"{name}, reverse"] = lambda path=path: path.rbm_reverse_ais(
            machine.v, *machine.parameters, base, betas.flip(0)
        )
    ratios = race(systems, rounds=15)
    assert min(ratios["reference"], ratios["reference"] / ratios["hand, one exp"]) > 0


@pytest.mark.parametrize("steps", [1, 25])
@pytest.mark.parametrize(("visible", "hidden"), [(784, 500), (200, 400)])
def bench_gibbs(race, visible, hidden, steps):
    """The negative phase of PCD: 100 chains."""
    machine = Machine.random(visible, hidden, 100)
    systems = {"hand": lambda: hand_sweeps.gibbs(machine, steps)}
    for name, path in PATHS.items():
        systems[name] = lambda path=path: path.rbm_gibbs(machine.v, *machine.parameters, steps)
    race(systems)


@pytest.mark.parametrize(("visible", "hidden", "count"), [(784, 500, 200), (200, 400, 1000)])
def bench_free_energy(race, visible, hidden, count):
    """Value and gradient of the free energy of bits."""
    machine = Machine.random(visible, hidden, count)
    parameters = [tensor.requires_grad_() for tensor in machine.parameters]

    def step(path):
        for parameter in parameters:
            parameter.grad = None
        path.rbm_free_energy(machine.v, *parameters).mean().backward()

    race({name: lambda path=path: step(path) for name, path in PATHS.items()})


@pytest.mark.parametrize("shape", [(10, 100, 784), (50, 100, 200)])
@pytest.mark.parametrize("broadcast", ["bits", "logits"])
def bench_bernoulli_log_prob(race, shape, broadcast):
    """Forward and backward; of K particles' logits for one datum, or one posterior for K particles."""
    logits = torch.randn(shape if broadcast == "bits" else shape[1:], requires_grad=True)
    bits = (torch.rand(shape[1:] if broadcast == "bits" else shape) < 0.5).float()

    def plain():
        wide, target = torch.broadcast_tensors(logits, bits)
        cross_entropy(wide, target, reduction="none").sum(-1).sum().backward()

    race({"torch": plain, "unibound": lambda: kernels.bernoulli_log_prob(logits, bits).sum().backward()})
