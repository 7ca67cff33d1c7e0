"""The processes that train together, each a rank; a process alone is the only one of its kind, and waits for nobody.

Ranks share weights, the order of data and what a run's seed decides; what they draw while they train is their own. The
process group is that of `torch.distributed`, whoever made it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from unibound.errors import UniboundError, UsageError

T = TypeVar("T")
SEEDS = 2**31
"""Of which one is drawn; that of a rank follows it by the rank, since a CPU's generator reads 32 bits of a seed."""


class LostRankError(UniboundError):
    """Another rank has ended, so that this one waits in vain."""


def size() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which this one is; the first is 0."""
    return dist.get_rank() if size() > 1 else 0


@contextmanager
def _awaited() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostRankError(
            "a process of this run has ended, and the others end with it; go on with --resume"
        ) from error


def gather(own: T) -> list[T]:
    """What every rank has, in their order."""
    if size() == 1:
        return [own]
    found: list[Any] = [None] * size()
    with _awaited():
        dist.all_gather_object(found, own)
    return found


def of_first(own: T) -> T:
    """What the first rank has."""
    if size() == 1:
        return own
    found = [own]
    with _awaited():
        dist.broadcast_object_list(found)
    return found[0]


def require_same(name: str, own: object) -> None:
    """Raise UsageError where a rank has another value than the first, which says so for all; the others just end."""
    first, *others = gather(own)
    if other := next((index for index, value in enumerate(others, 1) if value != first), None):
        if rank() == 0:
            raise UsageError(f"rank {other} has other {name} than rank 0; give every machine the same")
        raise LostRankError(f"rank {other} has other {name}")


def share(count: int) -> slice:
    """Which of `count` things are this rank's: consecutive ones, as many as another has or one more."""
    ends = [count * index // size() for index in (rank(), rank() + 1)]
    return slice(*ends)


def rows(chosen: Tensor) -> Tensor:
    """This rank's share of a batch [B]; all of a batch that has fewer than there are ranks, so that none is idle."""
    return chosen if len(chosen) < size() else chosen[share(len(chosen))]


def average(parameters: Iterable[Tensor], loss: Tensor, count: int) -> Tensor:
    """Make every gradient, and the loss, the mean over the data of all ranks: one sum over ranks for all of them.

    Args:
        parameters: with the gradient of this rank's mean loss.
        loss: that mean.
        count: the data it is over.

    Returns:
        The mean over all data.
    """
    if size() == 1:
        return loss
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([*(gradient.flatten() for gradient in gradients), loss.detach().view(1)]) * count
    flat = torch.cat([flat, flat.new_tensor([count])])
    with _awaited():
        dist.all_reduce(flat)
    *found, mean = (flat[:-1] / flat[-1]).split([*(gradient.numel() for gradient in gradients), 1])
    for gradient, value in zip(gradients, found, strict=True):
        gradient.copy_(value.view_as(gradient))
    return mean.squeeze(0)


def part() -> None:
    """From here on draw other random numbers than the other ranks do; the first goes on as if it were alone."""
    if rank() > 0:
        torch.manual_seed(int(torch.randint(SEEDS, ())) + rank())


@contextmanager
def apart() -> Iterator[None]:
    """The same for a while, where all ranks drew alike and then go on alike."""
    if size() == 1:
        yield
        return
    seed = int(torch.randint(SEEDS, ()))
    with torch.random.fork_rng():
        torch.manual_seed(seed + rank())
        yield
