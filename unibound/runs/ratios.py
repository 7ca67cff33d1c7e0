"""What this machine makes of the claims about speed: ratios to the same mathematics written out by hand."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from unibound import kernels
from unibound.errors import UniboundError
from unibound.kernels.choice import backend
from unibound.runs.build import build
from unibound.runs.environment import processor
from unibound.runs.train import Training
from unibound.settings import sources
from unibound.testing import by_hand
from unibound.testing.verdict import FALSE_ALARM

Systems = dict[str, Callable[[], object]]
WIDTHS, NUM_HIDDEN, NUM_CHAINS, STEPS, BATCH = [784, 200, 200, 100, 100, 200], 400, 100, 5, 100
LEAST = 3  # rounds


def measure(seconds: float, say: Callable[[str], object]) -> dict[str, dict[str, dict[str, float]]]:
    """The rows of every race, on one thread, within about so many seconds in all.

    Args:
        seconds: shared out evenly.
        say: told the name of each race before it begins.

    Raises:
        UniboundError: what is to be raced does not agree.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = {}
        for name, prepare in RACES.items():
            say(name)
            found[name] = race(prepare(), seconds / len(RACES))
        return found
    finally:
        torch.set_num_threads(before)


def machine() -> dict[str, str]:
    """What they are measured on and with."""
    twin = backend("rbm_ais", torch.zeros(1)).__name__.rpartition(".")[2]
    return {"processor": processor(), "torch": torch.__version__, "kernels": twin}


def race(systems: Systems, seconds: float) -> dict[str, dict[str, float]]:
    """Let systems take turns; of each but the first, the ratio of its CPU time to the first's, and its milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in systems}
    for system in systems.values():
        system()  # compiled, and warm
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(next(iter(times.values()))) < LEAST:
        for name, system in systems.items():
            start = time.process_time()
            system()
            times[name].append(max(time.process_time() - start, 1e-9))
    first, *others = times
    rows = {}
    for name in others:
        low, ratio, high = statistics.quantiles((a / b for a, b in zip(times[name], times[first], strict=True)), n=4)
        rows[name] = {"ratio": ratio, "low": low, "high": high, "ms": 1e3 * statistics.median(times[name])}
    return rows


def _agree(one: Tensor, other: Tensor) -> None:
    """Raise UniboundError unless values [M] have equal means, as far as draws let them."""
    apart = one.double() - other.double()
    if not apart.mean().abs() <= FALSE_ALARM * apart.std() / len(apart) ** 0.5:
        raise UniboundError(f"what is to be raced is not the same: means differ by {apart.mean():.3g}; report this")


def annealing() -> Systems:
    """Twenty temperatures of 200 x 400 units, 500 chains."""
    machine, betas = by_hand.Machine.random(200, 400, 500), torch.linspace(0.3, 0.31, 21, dtype=torch.float64)

    def loop() -> Tensor:
        return by_hand.ais(machine, betas.tolist(), shared_exp=False)

    def ours() -> Tensor:
        return kernels.rbm_ais(machine.v, *machine.parameters, torch.zeros(200), betas)[1]

    _agree(ours(), loop())
    return {"hand": loop, "unibound": ours}


def gibbs() -> Systems:
    """Twenty-five steps of 100 chains of 784 x 500 units."""
    machine = by_hand.Machine.random(784, 500, 100)

    def loop() -> Tensor:
        return by_hand.gibbs(machine, 25)

    def ours() -> Tensor:
        return kernels.rbm_gibbs(machine.v, *machine.parameters, 25)

    _agree(ours().sum(1), loop().sum(1))
    return {"hand": loop, "unibound": ours}


def bits() -> Systems:
    """log-probability of bits and its gradient."""
    logits, x = torch.randn(10, BATCH, 784, requires_grad=True), (torch.rand(BATCH, 784) < 0.3).float()

    def loop() -> None:
        cross_entropy(logits, x.expand_as(logits), reduction="none").sum().backward()

    return {"hand": loop, "unibound": lambda: kernels.bernoulli_log_prob(logits, x).sum().backward()}


def step(num_particles: int) -> Systems:
    """A training step of the paper's networks and RBM."""
    x = (torch.rand(BATCH, 784) < 0.13).float()
    loop = by_hand.VimcoRBM(WIDTHS, NUM_HIDDEN, num_particles, STEPS, NUM_CHAINS)
    chosen: dict[str, Any] = {
        "model": {"num_latents": WIDTHS[-1], "hidden": WIDTHS[1:-1], "dropout": 0.0},
        "prior": {"num_hidden": NUM_HIDDEN, "num_chains": NUM_CHAINS, "steps": STEPS},
        "estimator": {"num_particles": num_particles},
    }
    settings = sources.resolve([sources.Layer(chosen)])
    stage, joint = settings.stages[0], build(settings, x.mean(0))
    training = Training(joint, [stage], x, batch_size=BATCH)
    systems: Systems = {"hand": lambda: loop.step(x)}
    for backward in ("all", "resampled"):
        way = attrs.evolve(stage.estimator.settings, backward=backward)
        systems[backward] = lambda way=way: training.step(way, x)
    return systems


RACES: dict[str, Callable[[], Systems]] = {
    "annealing, 200 x 400": annealing,
    "25 Gibbs steps, 784 x 500": gibbs,
    "log-probability of bits": bits,
    "training step, 10 particles": lambda: step(10),
    "training step, 50 particles": lambda: step(50),
}
