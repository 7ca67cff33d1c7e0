"""Everything there is of a kind, numbered: states, tuples, parameters and their gradients."""

import math
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from unibound.support import Constraint, boolean, values

M = TypeVar("M", bound=nn.Module)


def all_states(support: Constraint | None, shape: tuple[int, ...]) -> Tensor:
    """Every state of a given shape whose elements are of a finite support: [n^size, *shape], float64."""
    listed, size = values(support), math.prod(shape)
    assert listed is not None, f"{support} cannot be listed"
    index = torch.arange(len(listed) ** size).unsqueeze(1)
    digits = index // len(listed) ** torch.arange(size) % len(listed)
    return torch.tensor(listed, dtype=torch.float64)[digits].view(-1, *shape)


def all_bits(shape: tuple[int, ...]) -> Tensor:
    """Every state of bits of a given shape: [2^n, *shape], float64."""
    return all_states(boolean, shape)


def number(states: Tensor, support: Constraint | None = boolean) -> Tensor:
    """Number of each state [..., V] among all, in the order of `all_states`: [...]."""
    listed = values(support)
    assert listed is not None, f"{support} cannot be listed"
    digits = (states - listed[0]).div(listed[1] - listed[0]).round().long()
    return (digits * len(listed) ** torch.arange(states.shape[-1])).sum(-1)


def tuples(count: int, k: int) -> Tensor:
    """Every k-tuple of the numbers below `count`: [count^k, k]."""
    return torch.stack([torch.arange(count**k) // count**i % count for i in range(k)], 1)


def scatter(module: M, seed: int, scale: float = 0.8) -> M:
    """Give every parameter a random value of its own, in float64; returns the module."""
    random = torch.Generator().manual_seed(seed)
    for parameter in module.double().parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=random, dtype=torch.float64)
    return module


def uneven(count: int, seed: int) -> Tensor:
    """Log-probabilities [count], no two alike, float64."""
    return torch.randn(count, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64).log_softmax(0)


def parameter_groups(parts: Mapping[str, nn.Module]) -> dict[str, list[nn.Parameter]]:
    """Parameters of each part, without the parts that have none."""
    listed = {name: list(part.parameters()) for name, part in parts.items()}
    return {name: parameters for name, parameters in listed.items() if parameters}


def gradients(
    value: Tensor, groups: Mapping[str, list[nn.Parameter]], *, create_graph: bool = False
) -> dict[str, Tensor]:
    """Gradient of a scalar with respect to each group, flattened; zero where it does not depend on it."""
    flat = [parameter for parameters in groups.values() for parameter in parameters]
    slopes = torch.autograd.grad(
        value, flat, retain_graph=True, create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    grads = iter(slopes)
    return {name: torch.cat([next(grads).flatten() for _ in parameters]) for name, parameters in groups.items()}
