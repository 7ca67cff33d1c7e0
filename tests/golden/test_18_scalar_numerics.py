"""Scalars where a naive formula overflows or cancels, and soft bits."""

from collections.abc import Callable
from typing import Any

import pytest
from golden import Item, items, tensor
from torch import Tensor

from unibound.distributions import Bits
from unibound.weights import log1mexp, log_mean_exp

soft_bits = pytest.importorskip("unibound_plugins.estimators.autoencoder").soft_bits


def log_prob(logits: Any, bits: Any) -> Tensor:
    """Of each bit by itself."""
    return Bits(tensor(logits).unsqueeze(-1)).log_prob(tensor(bits).unsqueeze(-1))


def mean_soft_bit(logit: float) -> float:
    """Over uniform noise, exactly: between its two kinks a soft bit is linear in it."""
    edges = tensor([0.0, *sorted(min(max(kink - logit, 0.0), 1.0) for kink in (0, 1)), 1.0])
    centers = (edges[1:] + edges[:-1]) / 2
    return (edges.diff() * soft_bits(tensor(logit), centers)).sum().item()


FIELDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "log1mexp": lambda given: log1mexp(tensor(given["x"])),
    "softplus": lambda given: -log_prob(given["x"], [0.0]),
    "log_sigmoid": lambda given: log_prob(given["x"], [1.0]),
    "logp_each": lambda given: log_prob(given["logits"], given["z"]),
    "logmeanexp": lambda given: [log_mean_exp(tensor(row)) for row in given["rows"]],
    # The paper prints noise centered at 0; `soft_bits` wants it above 0, which is the shift by one half.
    "output": lambda given: soft_bits(tensor(given["z"]).unsqueeze(1), tensor(given["u"])),
    "mean_over_u": lambda given: [mean_soft_bit(logit - 0.5) for logit in given["z"]],
    "mean_over_u_shifted_half": lambda given: [mean_soft_bit(logit) for logit in given["z"]],
}


@pytest.mark.parametrize("item", items("18_scalar_numerics"))
def test_scalars(item: Item) -> None:
    item.check(**{name: FIELDS[name](item.input) for name in item.expected})
