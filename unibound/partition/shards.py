"""Many annealing chains: in batches that can be interrupted and gone on with, each sharded over processes."""

import hashlib
import io
import math
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from torch import Tensor

from unibound import disk, ranks
from unibound.energies.energy import EnergyPrior
from unibound.errors import UniboundError, UsageError
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
        UniboundError: a process died.
    """
    if state is not None and not state.absolute().parent.is_dir():
        raise UsageError(f"state {state} is in no existing folder; make {state.absolute().parent} first")
    if state is not None and state.is_dir():
        raise UsageError(f"state {state} is a folder; name a file")
    if target_stderr > 0 and min(num_chains, max_chains) < 2:
        raise UsageError("a single chain has no standard error; allow at least 2, or leave target_stderr out")
    seed = int(torch.randint(2**40, ()).item())
    digest = "" if state is None else _digest(prior, schedule, walkers)
    log_w = _load(state, digest) if state is not None and state.exists() else torch.zeros(0, dtype=torch.float64)
    while len(log_w) < min(num_chains, max_chains) or (
        annealing.lower_bound(prior, log_w).stderr > target_stderr > 0 and len(log_w) < max_chains
    ):
        # Batches double: as many more again as there are, so that the error bar is looked at a few times only.
        count = min(max(num_chains, len(log_w)), max_chains - len(log_w))
        more = forward(prior, count, schedule, num_processes, seed + len(log_w), walkers)
        log_w = torch.cat([log_w, more.cpu()])
        if target_stderr > 0:
            found = annealing.lower_bound(prior, log_w).stderr
            print(f"{len(log_w)} chains: standard error {found:.2g} nats, {target_stderr:g} asked for", file=sys.stderr)
        if state is not None:
            buffer = io.BytesIO()
            torch.save({"digest": digest, "log_w": log_w}, buffer)
            disk.write(state, buffer.getvalue())
    return annealing.lower_bound(prior, log_w)


def forward(
    prior: EnergyPrior, num_chains: int, schedule: Schedule, num_processes: int, seed: int, walkers: int = 1
) -> Tensor:
    """Log-weights [M] of forward chains, sharded over ranks or processes; their mean is the mean over all shards."""
    if ranks.size() > 1:
        own = range(num_chains)[ranks.share(num_chains)]
        with torch.random.fork_rng():
            torch.manual_seed(seed * ranks.size() + ranks.rank())
            found = annealing.forward(prior, len(own), schedule, walkers=walkers)[1].cpu() if own else torch.zeros(0)
        return torch.cat(ranks.gather(found)).double()
    if num_processes == 1:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return annealing.forward(prior, num_chains, schedule, walkers=walkers)[1]
    shares = [num_chains // num_processes + (rank < num_chains % num_processes) for rank in range(num_processes)]
    betas, frozen = schedule.at(torch.arange(schedule.num_temperatures + 1)).tolist(), pickle.dumps(prior)
    threads = max(1, torch.get_num_threads() // num_processes)
    tasks = [
        (frozen, share, betas, seed * num_processes + rank, threads, walkers)
        for rank, share in enumerate(shares)
        if share
    ]
    return torch.tensor([value for found in _share_out(tasks) for value in found], dtype=torch.float64)


def _share_out(tasks: list[tuple[Any, ...]]) -> list[list[float]]:
    """What `_work` makes of each task, each in a process of its own, none of which outlives this one."""
    context, started, found = get_context("spawn"), {}, {}
    try:
        with _deaf(), _without_script(any(b"__main__" in frozen for frozen, *_ in tasks)):
            for rank, task in enumerate(tasks):
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(sender, *task), daemon=True)
                process.start()
                sender.close()  # so that the worker holds the only one, and its end is seen
                started[receiver] = rank, process
        while len(found) < len(started):
            ready = wait([receiver for receiver, (rank, _) in started.items() if rank not in found])
            for receiver in [receiver for receiver in started if receiver in ready]:
                rank, process = started[receiver]
                try:
                    found[rank] = receiver.recv()
                except EOFError as error:
                    process.join()
                    raise UniboundError(
                        f"a process that ran chains ended with {process.exitcode}, as for want of memory; take fewer "
                        "processes or chains, or, in a script with a prior of its own, begin under "
                        "`if __name__ == '__main__':`"
                    ) from error
                if isinstance(found[rank], Exception):
                    raise found[rank]
    finally:
        for _, process in started.values():
            process.kill()
            process.join()
    return [found[rank] for rank in range(len(tasks))]


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are begun here never hear Ctrl-C, which is for the one that began them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # the first process would begin it, and lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _without_script(needed: bool) -> Iterator[None]:
    """Processes that are begun here do not run the caller's script first, unless a prior that it defines needs it.

    They look for it where these attributes say, and a script without `if __name__ == "__main__":` would begin anew.
    """
    main, hidden = sys.modules["__main__"], {}
    if not needed:
        hidden = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
        vars(main).update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        vars(main).update(hidden)


def _work(
    sender: Connection, frozen: bytes, num_chains: int, betas: list[float], seed: int, threads: int, walkers: int
) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        sender.send(
            annealing.forward(pickle.loads(frozen), num_chains, schedules.of(betas), walkers=walkers)[1].tolist()
        )
    except Exception as error:
        sender.send(error)


def _end_with_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


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
