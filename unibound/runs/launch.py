"""Many processes on one run: lightning-fabric starts them, or finds those that torchrun or SLURM started.

Every rank trains in a folder of its own, of which the first rank's is the run's; those of the others are thrown away.
"""

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.distributed as dist

from unibound import ranks
from unibound.errors import NonFiniteError, UniboundError, UsageError
from unibound.runs.folder import LOCK

Place = Callable[[Path | None], Path | None]
"""From the folder of a run to that in which this rank trains."""


@contextmanager
def together(devices: int, num_nodes: int, device: str) -> Iterator[Place]:
    """Be one of devices x num_nodes ranks, and yield where this one trains; with one of each, be alone.

    What ranks other than the first print goes nowhere, but for what they fail by alone.

    Args:
        devices: processes on each machine: GPUs, or cores where the device is a CPU.
        num_nodes: machines.
        device: as the settings have it.

    Raises:
        UsageError: more devices than are there, or no lightning-fabric.
        LostRankError: another rank has ended.
    """
    if devices * num_nodes == 1:
        yield lambda folder: folder
        return
    _launch(devices, num_nodes, device.partition(":")[0])
    try:
        if ranks.rank() == 0:
            yield _first
            return
        with (
            tempfile.TemporaryDirectory() as scratch,
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
        ):
            yield lambda folder: _other(folder, Path(scratch) / "run")
    except (ranks.LostRankError, NonFiniteError) as error:
        if ranks.rank() == 0:
            raise
        sys.exit(error.exit_code)  # the first rank says it
    except UniboundError as error:
        if ranks.rank() > 0:
            print(f"unibound: rank {ranks.rank()}: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        raise
    finally:
        dist.destroy_process_group()


def _launch(devices: int, num_nodes: int, kind: str) -> None:
    if kind not in ("cpu", "cuda"):
        raise UsageError(f"--devices is of cpu or cuda, not {kind}; leave it out")
    if min(devices, num_nodes) < 1 or devices > there(kind):
        what = f"{there(kind)} {'GPUs' if kind == 'cuda' else 'cores'}"
        raise UsageError(f"--devices {devices} --num-nodes {num_nodes} cannot be had: {what} are here")
    if find_spec("lightning_fabric") is None:
        raise UsageError("--devices needs lightning-fabric: pip install 'unibound[fabric]'")
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    Fabric(accelerator=kind, devices=devices, num_nodes=num_nodes, strategy="ddp").launch()


def there(kind: str) -> int:
    """How many ranks this machine has room for: by its GPUs, or by its cores."""
    return torch.cuda.device_count() if kind == "cuda" else os.cpu_count() or 1


def _first(folder: Path | None) -> Path | None:
    ranks.gather(None)  # the others have read what there is to go on from
    return folder


def _other(folder: Path | None, scratch: Path) -> Path:
    if folder is not None and folder.is_dir():
        shutil.copytree(folder, scratch, ignore=shutil.ignore_patterns(LOCK))
    ranks.gather(None)
    return scratch
