"""What is known of data without any model: how likely they are where every element is on its own."""

import torch
from torch import Tensor

from unibound.support import Constraint, values


def independent(x: Tensor, over: Constraint | None) -> float | None:
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
    row, total = x.flatten(1), torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for value in listed:
        same = row == value  # [N, X]
        rate = same.double().sum(0) / (len(x) - 1 + len(listed))  # [X]
        total += torch.where(same, rate.clamp_min(1e-300).log(), 0.0).sum(1)
    return -total.mean().item()
