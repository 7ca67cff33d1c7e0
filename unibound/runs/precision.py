"""Mixed precision: the layers of the networks of q and p in bfloat16, all else as precise as ever."""

from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from unibound.errors import UsageError
from unibound.networks import Generator, Inference


def mix_precision(module: nn.Module) -> None:
    """Compute the layers of every Inference and Generator in a module in bfloat16 under autocast, while they train.

    A layer is what a network's own `forward` calls. What it returns is cast back to float32 before a distribution
    reads it, so that energies, log-probabilities and log-weights have full precision: a training bound is the exact
    bound of networks whose outputs are rounded. Weights, gradients and optimizer state stay float32; evaluation
    mode does as if this had never been called, and so does a float64 network.

    Source: Micikevicius et al., "Mixed precision training" (2018), https://arxiv.org/abs/1710.03740; bfloat16 has the
    exponents of float32, so that the loss needs no scale.
    """
    for network in module.modules():
        if isinstance(network, Inference | Generator):
            for layer in _layers(network):
                # A bound method, and no closure: a copy of the module then calls its own layers.
                layer.forward = MethodType(_autocast_forward, layer)


def _layers(network: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules with parameters that can be called, without networks inside, which have their own."""
    for child in network.children():
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from _layers(child)
        elif not isinstance(child, Inference | Generator) and any(True for _ in child.parameters()):
            yield child


def _autocast_forward(layer: nn.Module, *inputs: Any, **options: Any) -> Any:
    forward = type(layer).forward
    if not layer.training:
        return forward(layer, *inputs, **options)
    with torch.autocast(next(layer.parameters()).device.type, torch.bfloat16):
        outputs = forward(layer, *inputs, **options)
    return _restore(outputs, layer)


def _restore(outputs: Any, layer: nn.Module) -> Any:
    """The outputs of a layer, a tensor or several, with bfloat16 cast to float32."""
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.dtype == torch.bfloat16 else outputs
    if isinstance(outputs, list | tuple):
        return tuple(_restore(one, layer) for one in outputs)
    raise UsageError(
        f"mixed_precision needs layers that return tensors, but {type(layer).__name__} returns "
        f"{type(outputs).__name__}, which would hold rounded numbers; leave mixed_precision out"
    )
