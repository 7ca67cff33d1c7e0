"""What is known of data without any model: how likely they are where every element is on its own."""

import torch

from unibound.data.rows import Data
from unibound.support import Constraint, places, values

AT_ONCE = 1000  # data


def independent(x: Data, over: Constraint | None) -> float | None:
    """NLL of x [N, *X] in nats under independent elements; None where these have no finitely many values.

    Each datum is judged by the rates of the others, smoothed by one for each value, so that few data do not flatter
    themselves: of N data, n of which have at an element the value that datum i has there, n - 1 are others, and

        p(x_i at the element) = ((n - 1) + 1) / ((N - 1) + V) = n / (N - 1 + V)

    Args:
        x: data.
        over: what an element is made of, V values.
    """
    if (listed := values(over)) is None:
        return None
    first = len(listed) * torch.arange(x[:1].numel(), device=x.device)  # where the counts of each element begin
    counts = torch.zeros(len(listed) * len(first), dtype=torch.float64, device=x.device)
    for some in x.split(AT_ONCE):
        counts += torch.bincount((first + places(some.flatten(1), listed)).flatten(), minlength=len(counts))
    return -torch.xlogy(counts, counts / (len(x) - 1 + len(listed))).sum().item() / len(x)
