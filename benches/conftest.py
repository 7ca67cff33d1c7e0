"""Measure ratios: the systems take turns in one process, so that noise of the machine falls on all of them alike."""

import time
from collections.abc import Callable, Mapping

import pytest
import results
import torch

WARMUP = 3  # rounds


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--save-results", action="store_true", help="keep the ratios in benches/results, by machine")
    parser.addoption("--rounds", type=int, help="of every bench, at least 2, to see quickly that it runs")


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest):
    """What was measured, by bench; written at the end where that is asked for."""
    measured: dict[str, results.Bench] = {}
    yield measured
    if request.config.getoption("--save-results") and measured:
        print(f"\nsaved to {results.save(measured)}")


@pytest.fixture(autouse=True)
def one_thread():
    """Two threads on two busy cores are slower than one, and far noisier."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def race(benchmark, record, request):
    """Time systems in turn; the benchmark keeps the ratio of each median to that of the first, the reference.

    A target is the ratio that a system should not exceed.
    """

    def run(
        systems: dict[str, Callable[[], object]], rounds: int = 30, targets: Mapping[str, float] | None = None
    ) -> None:
        times: dict[str, list[float]] = {name: [] for name in systems}
        rounds = request.config.getoption("--rounds") or rounds
        warmup = min(WARMUP, rounds - 1)

        def turn() -> None:
            for name, system in systems.items():
                start = time.process_time()
                system()
                times[name].append(time.process_time() - start)

        benchmark.pedantic(turn, rounds=rounds, warmup_rounds=warmup)
        # Of each round the ratio, of all rounds the median: a slow moment falls on numerator and denominator.
        reference = times[next(iter(systems))]
        rows = {
            name: results.Row.of(taken[warmup:], reference[warmup:], (targets or {}).get(name))
            for name, taken in times.items()
        }
        record[f"{request.path.stem}::{request.node.name}"] = results.Bench(rounds, rows)
        benchmark.extra_info["ratios"] = {name: row.ratio for name, row in rows.items()}
        benchmark.extra_info["milliseconds"] = {name: row.milliseconds for name, row in rows.items()}
        for name, row in rows.items():
            aim = "" if row.target is None else f"  target {row.target:.2f}{'' if row.met else ', MISSED'}"
            print(f"{name:>24} {row.ratio:6.2f}  {row.milliseconds:9.2f} ms{aim}")

    return run
