"""The networks of the cases: single linear layers of logits."""

from typing import Any

import torch
from golden import tensor
from torch import Tensor, nn
from torch.distributions import Distribution

from unibound import Generator, Inference
from unibound.distributions import Bits


def linear(weight: Any, bias: Any) -> nn.Linear:
    """The layer of a weight [out, in] and a bias [out], in float64."""
    values = {"weight": tensor(weight), "bias": tensor(bias)}
    layer = nn.Linear(values["weight"].shape[1], values["weight"].shape[0], dtype=torch.float64)
    layer.load_state_dict(values)
    return layer


class Upper(Inference):
    """q(tau | x): bits whose logits are linear in those below."""

    def __init__(self, weight: Any, bias: Any) -> None:
        super().__init__()
        self.logits = linear(weight, bias)

    def forward(self, x: Tensor) -> Distribution:
        return Bits(self.logits(x))


class Lower(Generator):
    """p(x | tau): bits whose logits are linear in those above."""

    def __init__(self, weight: Any, bias: Any) -> None:
        super().__init__()
        self.logits = linear(weight, bias)

    def forward(self, tau: Tensor) -> Distribution:
        return Bits(self.logits(tau))
