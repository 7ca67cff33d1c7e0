"""What a second core brings: two threads that anneal, and two ranks that train, each against one.

    python benches/cores.py            a table in two minutes; it means nothing unless two cores are idle
    python benches/cores.py 1 20 50    few rounds, temperatures and data, to see that it runs

Wall-clock time, since it is what cores are for. One and two take turns, and each ratio is of medians. A step is that of
VIMCO on 400 data, about 200 ms alone, of which each of two ranks has half the data; ranks are processes of their own,
with one thread each, and time starts when both are there.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import torch
import torch.distributed as dist
from bench_training import make_training
from scale import sweeps

from unibound import ranks

STEPS, WARMUP = 20, 3


def annealing(rounds: int, temperatures: int) -> tuple[list[float], list[float]]:
    """Seconds of annealing by one thread and by two."""
    torch.manual_seed(0)
    work = sweeps(200, 400, 2048, temperatures)
    work()
    return in_turn(rounds, lambda: with_threads(1, work), lambda: with_threads(2, work))


def with_threads(count: int, work: Callable[[], object]) -> float:
    torch.set_num_threads(count)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def training(rounds: int, data: int) -> tuple[list[float], list[float]]:
    """Seconds of a step by one rank and by two."""
    return in_turn(rounds, lambda: by_ranks(1, data), lambda: by_ranks(2, data))


def in_turn(rounds: int, one: Callable[[], float], two: Callable[[], float]) -> tuple[list[float], list[float]]:
    """What one and two took, of each round."""
    pairs = [(one(), two()) for _ in range(rounds)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def by_ranks(count: int, data: int) -> float:
    """Median seconds of a step by so many ranks, by the clock of the first."""
    with tempfile.TemporaryDirectory() as folder:
        own = [sys.executable, __file__, "rank", str(count), str(data), str(Path(folder) / "store")]
        started = [subprocess.Popen([*own, str(rank)], stdout=subprocess.PIPE, text=True) for rank in range(count)]
        said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("a rank has failed; what it said stands above")
    return float(said[0])


def be_rank(count: int, data: int, store: str, rank: int) -> float:
    """Train as one of some ranks, and return the median seconds of a step."""
    torch.set_num_threads(1)
    if count > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    torch.manual_seed(0)
    x = (torch.rand(data, 784) < 0.13).float()
    own, estimator = make_training(x, 20, 5)
    ranks.part()
    way, part = attrs.evolve(estimator, backward="resampled"), x[ranks.rows(torch.arange(data))]
    taken = []
    for _ in range(WARMUP + STEPS):  # a step ends when all ranks have its gradient
        start = time.perf_counter()
        own.step(way, part)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[WARMUP:])


def main(rounds: int = 5, temperatures: int = 1000, data: int = 400) -> None:
    print(f"load of this machine before: {os.getloadavg()[0]:.1f}")
    print("| what | one | two | one / two | wanted |")
    print("|---|---:|---:|---:|---:|")
    for name, wanted, (one, two) in (
        ("threads that anneal", 1.7, annealing(rounds, temperatures)),
        ("ranks that train", 1.6, training(rounds, data)),
    ):
        first, second = statistics.median(one), statistics.median(two)
        print(
            f"| {name} | {1e3 * first:.0f} ms | {1e3 * second:.0f} ms | {first / second:.2f} | {wanted} |", flush=True
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        print(be_rank(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])))
    else:
        main(*map(int, sys.argv[1:4]))
