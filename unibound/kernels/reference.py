"""The definition of every kernel, in plain torch.

What the twins in `fused` and `compiled` compute is what this file computes. It is also the path that runs
where neither is available, so the sweeps work in place on a handful of buffers: a step allocates nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

_SLAB = 2**22  # elements of a temporary
_SMALL = 2**17  # elements up to which the cost of a call outweighs that of its temporaries


@torch.no_grad()
def rbm_gibbs(
    v: Tensor,
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    steps: int,
    *,
    beta: float = 1.0,
    base_bias: Tensor | None = None,
) -> Tensor:
    """`steps` block Gibbs steps of a tempered RBM; see `unibound.kernels.rbm_gibbs`."""
    v = v.to(weight.dtype, copy=True, memory_format=torch.contiguous_format)  # [M, V]
    bias = visible_bias * beta if base_bias is None else torch.lerp(base_bias, visible_bias, beta)  # [V]
    p_hidden, p_visible = weight.new_empty(len(v), weight.shape[1]), torch.empty_like(v)  # [M, H], [M, V]
    hidden = torch.empty_like(p_hidden)  # [M, H]
    for _ in range(steps):
        # `rand < p` draws what `bernoulli(p)` draws, at a third of the cost.
        torch.addmm(hidden_bias, v, weight, beta=beta, alpha=beta, out=p_hidden).sigmoid_()
        hidden.uniform_().lt_(p_hidden)
        torch.addmm(bias, hidden, weight.T, alpha=beta, out=p_visible).sigmoid_()
        v.uniform_().lt_(p_visible)
    return v


def rbm_free_energy(
    v: Tensor,
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    *,
    beta: float = 1.0,
    base_bias: Tensor | None = None,
) -> Tensor:
    """-log f_beta of states; see `unibound.kernels.rbm_free_energy`."""
    bias = visible_bias if beta == 1.0 else beta * visible_bias + (0.0 if base_bias is None else (1 - beta) * base_bias)
    hidden = softplus(beta * (v @ weight + hidden_bias))  # [..., H]
    return -(v @ bias) - hidden.sum(-1)


def rbm_contrast(
    v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Free energies of states and of where they move; see `unibound.kernels.rbm_contrast`."""
    end = rbm_gibbs(v, weight, visible_bias, hidden_bias, steps)
    free = rbm_free_energy(torch.cat([v, end]), weight, visible_bias, hidden_bias)
    return free[: len(v)], free[len(v) :]


@torch.no_grad()
def rbm_ais(
    v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, base_bias: Tensor, betas: Tensor
) -> tuple[Tensor, Tensor]:
    """Forward annealing: weigh at each new temperature, then move; see `unibound.kernels.rbm_ais`."""
    chain = _Chain(v, weight, visible_bias, hidden_bias, base_bias)
    for cold, warm in pairwise(betas.to(weight.dtype).tolist()):
        chain.infer()
        chain.weigh(cold, warm)
        chain.move(warm)
    return chain.v, chain.log_ratio()


@torch.no_grad()
def rbm_reverse_ais(
    v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, base_bias: Tensor, betas: Tensor
) -> tuple[Tensor, Tensor]:
    """Reverse annealing: move at each temperature, then weigh; see `unibound.kernels.rbm_reverse_ais`."""
    chain = _Chain(v, weight, visible_bias, hidden_bias, base_bias)
    chain.infer()
    for warm, cold in pairwise(betas.to(weight.dtype).tolist()):
        chain.move(warm)
        chain.infer()
        chain.weigh(cold, warm)
    return chain.v, -chain.log_ratio()


class _Chain:
    """M chains and the buffers they move in.

    `infer` brings `activation` to c + v'W of the present v. `weigh` adds log f_warm(v) - log f_cold(v) to a
    running sum, which `log_ratio` returns. With x = c_j + (v'W)_j, the share of a hidden unit is

        softplus(warm x) - softplus(cold x)
            = (warm - cold) relu(x) + log(sigmoid(cold |x|) / sigmoid(warm |x|))

    where the quotient of sigmoids lies in [1/2, 1]: its product over 64 temperatures cannot underflow, so one
    logarithm serves them all, and a small step between temperatures is not lost as the difference of two
    large softpluses.
    """

    def __init__(self, v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, base_bias: Tensor):
        self.weight = weight  # [V, H]
        self.visible_bias = visible_bias  # [V]
        self.hidden_bias = hidden_bias  # [H]
        self.base_bias = base_bias  # [V]
        self.tilt = self.visible_bias - self.base_bias  # [V]
        self.v = v.to(weight.dtype, copy=True, memory_format=torch.contiguous_format)  # [M, V]
        self.activation = weight.new_empty(len(v), weight.shape[1])  # [M, H]
        self.hidden = torch.empty_like(self.activation)  # [M, H]
        self.scratch = torch.empty_like(self.activation)  # [M, H]
        self.visible = torch.empty_like(self.v)  # [M, V]
        self.quotient = torch.ones_like(self.activation)  # [M, H]
        self.pending = 0
        self.total = weight.new_zeros(len(v), dtype=torch.float64)  # [M]

    def infer(self) -> None:
        torch.addmm(self.hidden_bias, self.v, self.weight, out=self.activation)

    def move(self, beta: float) -> None:
        """v ~ T_beta."""
        torch.mul(self.activation, beta, out=self.scratch).sigmoid_()
        self.hidden.uniform_().lt_(self.scratch)
        bias = torch.lerp(self.base_bias, self.visible_bias, beta)  # [V]
        torch.addmm(bias, self.hidden, self.weight.T, alpha=beta, out=self.visible).sigmoid_()
        self.v.uniform_().lt_(self.visible)

    def weigh(self, cold: float, warm: float) -> None:
        size = torch.abs(self.activation, out=self.scratch)  # [M, H]
        slope = (self.activation.sum(1) + size.sum(1)) / 2 + self.v @ self.tilt  # [M]
        self.total.add_(slope, alpha=warm - cold)
        self.quotient.mul_(torch.mul(size, cold, out=self.hidden).sigmoid_())
        self.quotient.div_(size.mul_(warm).sigmoid_())
        self.pending += 1
        if self.pending == 64:
            self.log_ratio()

    def log_ratio(self) -> Tensor:
        self.total += self.quotient.log_().sum(1, dtype=torch.float64)
        self.quotient.fill_(1.0)
        self.pending = 0
        return self.total


@torch.no_grad()
def leave_one_out(log_w: Tensor) -> Tensor:
    """log mean weight, each particle in turn guessed by the others; see `unibound.kernels.leave_one_out`."""
    k = len(log_w)
    rest = torch.zeros_like(log_w)  # [K, B]; sum of the others, and never "all minus own", which cancels
    rest[1:] += log_w[:-1].cumsum(0)
    rest[:-1] += log_w[1:].flip(0).cumsum(0).flip(0)
    total = log_w.logsumexp(0)  # [B]
    # A weight that is not the largest is at most half of the sum, so taking it away is stable. The largest is
    # masked out.
    others = total + torch.log1p(-(log_w - total).exp().clamp(max=0.5))  # [K, B]
    top = log_w.argmax(0, keepdim=True)  # [1, B]
    others.scatter_(0, top, log_w.scatter(0, top, -math.inf).logsumexp(0, keepdim=True))
    return torch.logaddexp(others, rest / (k - 1)) - math.log(k)


def bernoulli_log_prob(logits: Tensor, bits: Tensor) -> Tensor:
    """log Bernoulli(bits; sigmoid(logits)) of vectors of bits; see `unibound.kernels.bernoulli_log_prob`."""
    bits = bits.to(logits.dtype)
    if max(logits.numel(), bits.numel()) <= _SMALL:
        wide, target = torch.broadcast_tensors(logits, bits)
        return -binary_cross_entropy_with_logits(wide, target, reduction="none").sum(-1)
    return _BernoulliLogProb.apply(logits, bits)  # type: ignore[no-any-return]


class _BernoulliLogProb(torch.autograd.Function):
    """bits'logits - sum softplus(logits), the softplus at the shape of the logits, never broadcast."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, bits: Tensor) -> Tensor:
        inner = _by_slab(torch.linalg.vecdot, *torch.broadcast_tensors(bits, logits))
        return inner - _by_slab(_sum_softplus, logits)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        logits, bits = ctx.saved_tensors
        grad = grad[..., None]
        grad_logits = grad_bits = None
        if ctx.needs_input_grad[0]:
            if torch.is_grad_enabled():  # for a second derivative or a torch.func transform: nothing in place
                grad_logits = ((bits - logits.sigmoid()) * grad).sum_to_size(logits.shape)
            elif logits.shape[:-1] == grad.shape[:-1]:
                grad_logits = logits.sigmoid().sub_(bits).mul_(-grad)
            else:
                grad_logits = _contract(grad, bits, logits) - logits.sigmoid() * grad.sum_to_size(*logits.shape[:-1], 1)
        if ctx.needs_input_grad[1]:
            grad_bits = (logits * grad).sum_to_size(bits.shape)
        return grad_logits, grad_bits


def _sum_softplus(x: Tensor) -> Tensor:
    """sum_d softplus(x_d), [..., D] -> [...].

    softplus(x) = relu(x) - log sigmoid(|x|) and sigmoid(|x|) lies in [1/2, 1), so the logarithm, which is what costs,
    can be taken of products of 64 factors at a time.
    """
    size = x.abs()
    relu = (x.sum(-1) + size.sum(-1)) / 2
    whole = x.shape[-1] // 64 * 64
    body, tail = size.sigmoid_().tensor_split([whole], -1)
    return relu - body.unflatten(-1, (-1, 64)).prod(-1).log_().sum(-1) - tail.prod(-1).log_()


def _contract(grad: Tensor, bits: Tensor, logits: Tensor) -> Tensor:
    """Sum of grad * bits over the axes along which the logits were broadcast, in the shape of the logits."""
    lead = grad.dim() - logits.dim()
    if logits.shape[:-1] != grad.shape[lead:-1]:  # broadcast along an inner axis too
        return (grad * bits).sum_to_size(logits.shape)
    copies = grad.shape[:lead].numel()
    x = bits.expand(*grad.shape[:-1], bits.shape[-1]).reshape(copies, -1, bits.shape[-1])  # [K, N, D]
    g = grad.reshape(copies, -1, 1)  # [K, N, 1]
    return torch.bmm(g.permute(1, 2, 0), x.transpose(0, 1)).view_as(logits)  # [N, 1, K] @ [N, K, D]


def _by_slab(reduce: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """`reduce` by slabs of the first axis, so that on a CPU its temporaries do not grow with the particles."""
    first = tensors[0]
    if first.device.type != "cpu" or first.dim() < 2 or first.numel() <= _SLAB:
        return reduce(*tensors)
    rows = max(1, _SLAB // first[0].numel())
    return torch.cat([reduce(*slab) for slab in zip(*(t.split(rows) for t in tensors), strict=True)])
