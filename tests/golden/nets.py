"""The belief nets of the cases: layers of bits above one another, and the q that goes up through them."""

from typing import Any

import pytest
from golden import tensor
from layers import Lower, Upper
from torch import nn

from unibound import JointBound, Layered, Upward

Bernoulli = pytest.importorskip("unibound_plugins.priors.bernoulli").Bernoulli


def layered(p: dict[str, Any], q: dict[str, Any], sizes: list[int]) -> JointBound:
    """Layers of sizes, the lowest latents first: p of W, b and top_logits, q of R and c."""
    top = Bernoulli((sizes[-1],)).double()
    top.load_state_dict({"logits": tensor(p["top_logits"])})
    lower = [Lower(weight, bias) for weight, bias in zip(p["W"], p["b"], strict=True)]
    upper = [Upper(weight, bias) for weight, bias in zip(q["R"], q["c"], strict=True)]
    return JointBound(Upward(upper, sizes), Layered(top, lower, sizes))


def parameters(joint: JointBound) -> dict[str, nn.Parameter]:
    """The parameters of `layered` by the names that the cases give their gradients."""
    named: dict[str, nn.Parameter] = {"p.top_logits": joint.p.prior.logits}
    for (weight, bias), layers in {("p.W", "p.b"): joint.p.generators, ("q.R", "q.c"): joint.q.layers}.items():
        for index, layer in enumerate(layers):
            named |= {f"{weight}.{index}": layer.logits.weight, f"{bias}.{index}": layer.logits.bias}
    return named
