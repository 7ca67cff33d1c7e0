"""Measure ratios: the systems take turns in one process, so that noise of the machine falls on all of them alike."""

import statistics
import time
from collections.abc import Callable

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads on two busy cores are slower than one, and far noisier."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def race(benchmark):
    """Time systems in turn; the benchmark keeps the ratio of each median to that of the first, the reference."""

    def run(systems: dict[str, Callable[[], object]], rounds: int = 30) -> dict[str, float]:
        times: dict[str, list[float]] = {name: [] for name in systems}

        def turn() -> None:
            for name, system in systems.items():
                start = time.process_time()
                system()
                times[name].append(time.process_time() - start)

        benchmark.pedantic(turn, rounds=rounds, warmup_rounds=3)
        # Of each round the ratio, of all rounds the median: a slow moment falls on numerator and denominator.
        reference = next(iter(systems))
        ratios = {
            name: statistics.median(a / b for a, b in zip(times[name][3:], times[reference][3:], strict=True))
            for name in systems
        }
        benchmark.extra_info["ratios"] = ratios
        benchmark.extra_info["milliseconds"] = {name: 1e3 * statistics.median(t[3:]) for name, t in times.items()}
        for name, ratio in ratios.items():
            print(f"{name:>24} {ratio:6.2f}  {benchmark.extra_info['milliseconds'][name]:9.2f} ms")
        return ratios

    return run
