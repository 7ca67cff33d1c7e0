"""Many annealing chains: in batches that can be interrupted and gone on with, each sharded over processes."""

import hashlib
import math
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from unibound.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.partition import annealing, schedules
from unibound.partition.log_z import LogZ
from unibound.partition.schedules import Schedule


def estimate(
    prior: EnergyPrior,
    schedule: Schedule,
    num_chains: int,
    *,
    target_stderr: float = 0.0,
    max_chains: int = 100_000,
    num_processes: int = 1,
    state: Path | None = None,
    walkers: int = 1,
) -> LogZ:
    """log Z by forward chains, a batch at a time until its standard error is as small as is asked for.

    Stopping looks at the error bar, never at the estimate. Batches have seeds of their own, derived from the
    global generator: a run that was interrupted and goes on under the same seed ends as if it never had been.

    Args:
        prior: what is annealed, its base distribution fitted.
        schedule: temperatures.
        num_chains: chains of a batch.
        target_stderr: nats; 0 is met by the first batch.
        max_chains: never run more chains than this.
        num_processes: processes that share a batch.
        state: file that keeps the log-weights of finished batches; if it is there, they are not run again.
        walkers: of each chain, which is a population if there are several.
    Raises:
        UsageError: a weight that is not finite, or a state of other weights or temperatures.
    """
    seed = int(torch.randint(2**40, ()).item())
    digest = "" if state is None else _digest(prior, schedule, walkers)
    log_w = _load(state, digest) if state is not None and state.exists() else torch.zeros(0, dtype=torch.float64)
    while len(log_w) < min(num_chains, max_chains) or (
        annealing.lower_bound(prior, log_w).stderr > target_stderr > 0 and len(log_w) < max_chains
    ):
        count = min(num_chains, max_chains - len(log_w))
        more = forward(prior, count, schedule, num_processes, seed + len(log_w), walkers)
        log_w = torch.cat([log_w, more.cpu()])
        if state is not None:
            draft = state.with_name(f".{state.name}.draft")
            torch.save({"digest": digest, "log_w": log_w}, draft)
            os.replace(draft, state)
    return annealing.lower_bound(prior, log_w)


def forward(
    prior: EnergyPrior, num_chains: int, schedule: Schedule, num_processes: int, seed: int, walkers: int = 1
) -> Tensor:
    """Log-weights [M] of forward chains, sharded over processes; their mean is the mean over all shards."""
    if num_processes == 1:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return annealing.forward(prior, num_chains, schedule, walkers=walkers)[1]
    shares = [num_chains // num_processes + (rank < num_chains % num_processes) for rank in range(num_processes)]
    betas, frozen = schedule.at(torch.arange(schedule.num_temperatures + 1)).tolist(), pickle.dumps(prior)
    threads = max(1, torch.get_num_threads() // num_processes)
    with ProcessPoolExecutor(num_processes, get_context("spawn")) as pool:
        tasks = [
            pool.submit(_work, frozen, share, betas, seed * num_processes + rank, threads, walkers)
            for rank, share in enumerate(shares)
            if share
        ]
        return torch.tensor([value for task in tasks for value in task.result()], dtype=torch.float64)


def _work(frozen: bytes, num_chains: int, betas: list[float], seed: int, threads: int, walkers: int) -> list[float]:
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    return annealing.forward(pickle.loads(frozen), num_chains, schedules.of(betas), walkers=walkers)[1].tolist()


def _digest(prior: EnergyPrior, schedule: Schedule, walkers: int) -> str:
    """What the log-weights depend on: parameters, base distribution, temperatures, and what a chain is."""
    digest = hashlib.sha256(b"" if walkers == 1 else f"{walkers} walkers".encode())
    for name, value in prior.state_dict().items():
        if name != "chains":
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    for betas in schedule.blocks():
        digest.update(betas.numpy().tobytes())
    return digest.hexdigest()


def _load(state: Path, digest: str) -> Tensor:
    try:
        found = torch.load(state, weights_only=True)
        log_w, known = found["log_w"], found["digest"]
    except Exception as error:  # torch raises a dozen kinds on a file that is not its own
        raise UsageError(f"{state} is no state of an annealing run; name another file") from error
    if known != digest or log_w.dtype != torch.float64 or not math.isfinite(log_w.sum().item()):
        raise UsageError(f"{state} is the state of another model or schedule; remove it, or name another file")
    return log_w
