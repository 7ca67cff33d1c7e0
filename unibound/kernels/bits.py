"""The log-probability of bits, one compiled pass each way: the numba twin of the definition in `reference`, float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unibound.kernels import reference
from unibound.kernels.passes import log_prob, log_prob_gradient


def bernoulli_log_prob(logits: Tensor, bits: Tensor) -> Tensor:
    """log Bernoulli(bits; sigmoid(logits)), one pass each way; see `unibound.kernels.bernoulli_log_prob`."""
    shape = torch.broadcast_shapes(logits.shape, bits.shape)
    recurs = bits.shape == shape[len(shape) - bits.dim() :]
    if logits.shape != shape or not recurs or bits.requires_grad or not logits.numel():
        return reference.bernoulli_log_prob(logits, bits)
    return _BernoulliLogProb.apply(logits, bits.to(logits.dtype))  # type: ignore[no-any-return]


class _BernoulliLogProb(torch.autograd.Function):
    """Of logits [..., D], and bits whose shape is the end of theirs."""

    @staticmethod
    def forward(logits: Tensor, bits: Tensor) -> Tensor:
        out = torch.empty(logits.shape[:-1])
        log_prob(*_rows(logits, bits), out.view(-1).numpy())
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        logits, bits = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a second derivative
            return (bits - logits.sigmoid()) * grad[..., None], None
        out = torch.empty_like(logits, memory_format=torch.contiguous_format)
        log_prob_gradient(
            grad.reshape(-1).contiguous().numpy(), *_rows(logits, bits), out.view(-1, out.shape[-1]).numpy()
        )
        return out, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], logits: Tensor, bits: Tensor) -> tuple[Tensor, int]:
        logits, bits = (
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip((logits, bits), in_dims, strict=True)
        )
        inner = logits.dim() - bits.dim()
        return reference.bernoulli_log_prob(logits, bits.view(len(bits), *[1] * inner, *bits.shape[1:])), 0


def _rows(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(tensor.detach().contiguous().view(-1, tensor.shape[-1]).numpy() for tensor in tensors)
