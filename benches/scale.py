"""How cost grows: a fixed part and one in proportion, and how far off that is at a size not seen.

    python benches/scale.py            a table in a minute or two, of one thread; docs/scale.md keeps one

Each quantity is varied alone. Sizes take turns, times are medians of CPU time. A line through the times of all sizes
but the largest foretells that of the largest; the exponent is what is left to see between the last two sizes.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import attrs
import torch
from bench_training import make_training

from unibound import kernels
from unibound.evaluation.evaluate import evaluate
from unibound.partition import LogZ, ScaledPrior
from unibound.testing.by_hand import Machine

Work = Callable[[], object]


def steps(num_particles: int, batch: int) -> Work:
    """A training step of VIMCO, one particle sent back for all."""
    x = (torch.rand(batch, 784) < 0.13).float()
    training, estimator = make_training(x, num_particles, 5)
    way = attrs.evolve(estimator, backward="resampled")
    return lambda: training.step(way, x)


def evaluations(num_particles: int, data: int) -> Work:
    """Evaluation, with log Z given."""
    x = (torch.rand(data, 784) < 0.13).float()
    training, _ = make_training(x, 2, 5)
    prior = ScaledPrior(training.joint.p.prior, LogZ(0.0))
    return lambda: evaluate(training.joint, x, num_particles=num_particles, normalized=prior, posterior="none")


def sweeps(visible: int, hidden: int, chains: int, temperatures: int) -> Work:
    """Annealing of a random machine."""
    m, betas = Machine.random(visible, hidden, chains), torch.linspace(0, 1, temperatures + 1, dtype=torch.float64)
    return lambda: kernels.rbm_ais(m.v, *m.parameters, torch.zeros(visible), betas)


QUANTITIES: dict[str, tuple[Callable[[int], Work], tuple[int, ...]]] = {
    "particles of a step (B = 50)": (lambda n: steps(n, 50), (25, 50, 100, 400)),
    "data of a step (K = 20)": (lambda n: steps(20, n), (50, 100, 200, 800)),
    "particles of an evaluation (10 data)": (lambda n: evaluations(n, 10), (500, 1000, 2000, 8000)),
    "data of an evaluation (K = 100)": (lambda n: evaluations(100, n), (25, 50, 100, 400)),
    "chains of annealing": (lambda n: sweeps(200, 400, n, 20), (250, 500, 1000, 4000)),
    "temperatures of annealing": (lambda n: sweeps(200, 400, 100, n), (100, 200, 400, 4000)),
    "latents of annealing": (lambda n: sweeps(n, 400, 100, 50), (100, 200, 400, 1600)),
}


def measured(works: Sequence[Work], rounds: int) -> list[float]:
    """Median CPU seconds of each, taken in turn."""
    times: list[list[float]] = [[] for _ in works]
    for work in works:
        work()
    for _ in range(rounds):
        for work, taken in zip(works, times, strict=True):
            start = time.process_time()
            work()
            taken.append(time.process_time() - start)
    return [statistics.median(taken) for taken in times]


def line(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Slope and intercept of seconds over size, by least squares of relative errors; neither is below zero."""
    weight = torch.tensor(seconds, dtype=torch.float64).reciprocal().unsqueeze(1)
    columns = torch.tensor([[n, 1.0] for n in sizes], dtype=torch.float64)
    slope, fixed = torch.linalg.lstsq(columns * weight, torch.ones_like(weight)).solution.flatten().tolist()
    if fixed < 0:
        return statistics.median(t / n for n, t in zip(sizes, seconds, strict=True)), 0.0
    return slope, fixed


def main(rounds: int = 5) -> None:
    torch.set_num_threads(1)
    print("| quantity | sizes | fixed | of each | exponent | largest | foretold | measured | ratio |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, (make, sizes) in QUANTITIES.items():
        torch.manual_seed(0)
        times = measured([make(n) for n in sizes], rounds)
        each, fixed = line(sizes[:-1], times[:-1])
        foretold = fixed + each * sizes[-1]
        local = math.log(times[-1] / times[-2]) / math.log(sizes[-1] / sizes[-2])
        row = [name, ", ".join(map(str, sizes[:-1])), f"{1e3 * fixed:.1f} ms", f"{1e6 * each:.0f} us", f"{local:.2f}"]
        row += [str(sizes[-1]), f"{1e3 * foretold:.0f} ms", f"{1e3 * times[-1]:.0f} ms", f"{foretold / times[-1]:.2f}"]
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
