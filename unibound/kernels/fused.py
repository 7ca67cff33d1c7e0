"""Triton twins of `reference`: one launch per sweep, all temperatures of it, with the chains kept on chip.

A program owns a block of chains and streams the weight past them, once per temperature. A tile of the weight
serves twice: it gives the tile's hidden activations, whose share of the log-weight is taken and whose bits
are drawn at once, and then, transposed, what those bits add to the visible activations. Nothing but the last
state and the log-weights is stored. Units are the rows of both products and chains their columns, since a tensor
core wants many rows and takes few columns: a block may be narrow, and narrow blocks keep every core busy.

Precision. A state is binary, so exact in bfloat16; the weight is split into `_PARTS` bfloat16 tensors that
sum to it within 2^-18 of each entry (two parts; three are exact), and products are accumulated in float32.
Log-weights accumulate in float64. Temperatures are rounded to float32 once, so that what one step calls warm
is exactly what the next calls cold.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F
from triton.runtime.errors import OutOfResources

from unibound.kernels import reference

_PARTS = 2
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_WIDEST = 2048  # visible units whose activations still fit in the registers of one program
_LAYOUTS = ((128, 64, 8), (64, 32, 4), (32, 32, 4), (16, 16, 4))
"""Hidden units of a tile, chains of a block at most, and warps, the fastest first: at 200 visible units 192, 88, 56 and
28 KiB of shared memory at most. An H100 has 227 for one program, an A100 163, an RTX 4090 99."""
_REGISTERS = 255  # of a thread: the compiler, left alone, gives wide machines 32, and spills 7 KiB of each
_MOST = 4096  # particles that leave_one_out holds at once


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
    """`steps` block Gibbs steps of a tempered RBM, in one launch; see `unibound.kernels.rbm_gibbs`."""
    if weight.shape[0] > _WIDEST:
        return reference.rbm_gibbs(v, weight, visible_bias, hidden_bias, steps, beta=beta, base_bias=base_bias)
    base = torch.zeros_like(visible_bias) if base_bias is None else base_bias
    betas = torch.full((steps + 1,), beta, dtype=torch.float64)
    return _run(v, weight, visible_bias, hidden_bias, base, betas, 0)[0]


def rbm_contrast(
    v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Free energies of states and of where they move; see `unibound.kernels.rbm_contrast`."""
    end = rbm_gibbs(v, weight, visible_bias, hidden_bias, steps)
    free = reference.rbm_free_energy(torch.cat([v, end]), weight, visible_bias, hidden_bias)
    return free[: len(v)], free[len(v) :]


def rbm_ais(
    v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, base_bias: Tensor, betas: Tensor
) -> tuple[Tensor, Tensor]:
    """Forward annealing: weigh at each new temperature, then move; see `unibound.kernels.rbm_ais`."""
    if weight.shape[0] > _WIDEST:
        return reference.rbm_ais(v, weight, visible_bias, hidden_bias, base_bias, betas)
    return _run(v, weight, visible_bias, hidden_bias, base_bias, betas, 1)


def rbm_reverse_ais(
    v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, base_bias: Tensor, betas: Tensor
) -> tuple[Tensor, Tensor]:
    """Reverse annealing: move at each temperature, then weigh; see `unibound.kernels.rbm_reverse_ais`."""
    if weight.shape[0] > _WIDEST:
        return reference.rbm_reverse_ais(v, weight, visible_bias, hidden_bias, base_bias, betas)
    return _run(v, weight, visible_bias, hidden_bias, base_bias, betas, -1)


@torch.no_grad()
def _run(
    v: Tensor,
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    base: Tensor,
    betas: Tensor,
    direction: int,
) -> tuple[Tensor, Tensor]:
    for tile, most, warps in _LAYOUTS:
        try:
            return _launch(v, weight, visible_bias, hidden_bias, base, betas, direction, tile, most, warps)
        except OutOfResources as error:
            reason = error
    warnings.warn(
        f"no layout of a sweep of {list(weight.shape)} units fits this GPU ({reason}); plain torch", stacklevel=3
    )
    if direction == 0:
        return reference.rbm_gibbs(
            v, weight, visible_bias, hidden_bias, len(betas) - 1, beta=betas[0].item(), base_bias=base
        ), v.new_zeros(0)
    sweep = reference.rbm_ais if direction > 0 else reference.rbm_reverse_ais
    return sweep(v, weight, visible_bias, hidden_bias, base, betas)


def _launch(
    v: Tensor,
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    base: Tensor,
    betas: Tensor,
    direction: int,
    tile: int,
    most: int,
    warps: int,
) -> tuple[Tensor, Tensor]:
    """States and log-weights after one launch. Raises OutOfResources where the layout does not fit the GPU."""
    chains, visible = v.shape
    v_wide = max(16, triton.next_power_of_2(visible))
    tile = _tile(tile, v_wide, weight.shape[1])
    block = _block(most, v_wide, chains, _multiprocessors(weight.device))
    h_wide = -(-weight.shape[1] // tile) * tile
    parts = split(F.pad(weight.T, (0, v_wide - visible, 0, h_wide - weight.shape[1])).contiguous())
    out = torch.empty(chains, visible, dtype=weight.dtype, device=weight.device)
    log_w = torch.zeros(chains, dtype=torch.float64, device=weight.device)
    with torch.cuda.device_of(weight):
        _sweep[(triton.cdiv(chains, block),)](
            v.to(weight.dtype).contiguous(),
            parts,
            visible_bias.contiguous(),
            F.pad(hidden_bias, (0, h_wide - len(hidden_bias))),
            base.contiguous(),
            betas.to(weight.device, torch.float32),
            out,
            log_w,
            int(torch.randint(2**62, ())),
            chains,
            visible,
            h_wide,
            len(betas) - 1,
            DIRECTION=direction,
            PARTS=_PARTS,
            # The interpreter multiplies bfloat16 as if it were integers; the same values in float32 give the
            # same products.
            OPERAND=tl.float32 if _INTERPRETED else tl.bfloat16,
            V=v_wide,
            TILE=tile,
            BLOCK=block,
            num_warps=warps,
            num_stages=1,
            maxnreg=_REGISTERS,
        )
    return out, log_w


def _tile(tile: int, v_wide: int, hidden: int) -> int:
    """Hidden units of a tile of the weight: 64 KiB of it for each part, at most."""
    return max(16, min(tile, 32768 // v_wide, triton.next_power_of_2(hidden)))


def _block(most: int, v_wide: int, chains: int, multiprocessors: int) -> int:
    """Chains of a program: the fewest at which all programs run at once, since a narrow block is done sooner."""
    block, widest = 16, min(most, 16384 // v_wide)
    while 2 * block <= widest and block * multiprocessors < chains:
        block *= 2
    return block


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def split(weight: Tensor, parts: int = _PARTS) -> Tensor:
    """bfloat16 tensors that sum to a float32 one, each the rounding of what the former ones left: [parts, ...]."""
    out = []
    for _ in range(parts):
        out.append(weight.bfloat16())
        weight = weight - out[-1].float()
    return torch.stack(out)


@triton.jit
def _uniform(seed, column, first, stride, step, kind, N: tl.constexpr):
    """[N, chains] uniforms on (0, 1), eight from each call of Philox.

    A draw reads one half of a 32-bit word first and turns to the other half where the first ties with its
    threshold, so both draws of a word have 23 exact bits and are dependent only in the event, of probability
    2^-16, that one ties.
    """
    group = first + tl.arange(0, N // 8)
    c0 = group[:, None] + column[None, :] * stride
    c1 = tl.zeros_like(c0) + step
    c2 = tl.zeros_like(c0) + kind
    a, b, c, d = tl.philox(seed, c0, c1, c2, tl.zeros_like(c0), 7)
    word = tl.join(tl.join(a, b), tl.join(c, d))  # [N / 8, chains, 2, 2]
    word = tl.permute(tl.join(word, (word << 16) | (word >> 16)), (0, 2, 3, 4, 1))
    return ((tl.reshape(word, (N, column.shape[0])) >> 9).to(tl.int32).to(tl.float32) + 0.5) * (2.0**-23)


@triton.jit(do_not_specialize=("seed", "chains", "steps"))  # which change from launch to launch
def _sweep(
    v_start,
    parts,
    visible_bias,
    hidden_bias,
    base_bias,
    betas,
    v_end,
    log_w_end,
    seed,
    chains,
    visible,
    hidden,
    steps,
    DIRECTION: tl.constexpr,
    PARTS: tl.constexpr,
    OPERAND: tl.constexpr,
    V: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """DIRECTION 1: weigh (k, k + 1), move at k + 1. -1: weigh (k - 1, k), move at k. 0: move only."""
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    unit = tl.arange(0, V)
    inside = (unit < visible)[:, None] & (column < chains)[None, :]
    place = unit[:, None] + column.to(tl.int64)[None, :] * visible
    v = tl.load(v_start + place, mask=inside, other=0.0)  # [V, BLOCK]
    base = tl.load(base_bias + unit, mask=unit < visible, other=0.0)
    tilt = tl.load(visible_bias + unit, mask=unit < visible, other=0.0) - base
    log_w = tl.zeros((BLOCK,), tl.float64)
    # Downward there is one weight more to take after the last move; the move that would follow it is not
    # kept.
    for k in range(steps + (DIRECTION < 0)):
        cold = tl.load(betas + k)
        if DIRECTION > 0:
            warm = tl.load(betas + k + 1)
            beta = warm
        else:
            warm = tl.load(betas + tl.maximum(k - 1, 0))
            beta = cold
        slope = tl.sum(v * tilt[:, None], 0)  # [BLOCK]
        rest = tl.zeros((BLOCK,), tl.float32)
        y = tl.zeros((V, BLOCK), tl.float32)
        bits = v.to(OPERAND)
        for start in range(0, hidden, TILE):
            row = start + tl.arange(0, TILE)
            from_tile = parts + row.to(tl.int64)[:, None] * V + unit[None, :]  # [TILE, V]
            x = tl.zeros((TILE, BLOCK), tl.float32) + tl.load(hidden_bias + row)[:, None]
            for part in tl.static_range(PARTS):
                x = tl.dot(tl.load(from_tile + part * V * hidden).to(OPERAND), bits, x)
            size = tl.abs(x)
            if DIRECTION == 0:
                e = tl.exp(-beta * size)
            else:
                # softplus(warm x) - softplus(cold x) = (warm - cold) relu(x) + 2 artanh(s); |s| <= 1/3
                e_cold = tl.exp(-cold * size)
                e_warm = tl.exp(-warm * size)
                s = (e_warm - e_cold) / (2.0 + e_warm + e_cold)
                z = s * s
                series = z * (0.2857142857 + z * (0.2222222222 + z * (0.1818181818 + z * 0.1538461538)))
                rest += tl.sum(s * (2.0 + z * (0.6666666667 + z * (0.4 + series))), 0)
                slope += tl.sum(tl.maximum(x, 0.0), 0)
                e = e_warm if DIRECTION > 0 else e_cold
            u = _uniform(seed, column, start // 8, hidden // 8, k, 0, TILE)
            h = (u * (1.0 + e) < tl.where(x > 0, 1.0, e)).to(tl.float32).to(OPERAND)  # u < sigmoid(beta x)
            for part in tl.static_range(PARTS):
                y = tl.dot(tl.trans(tl.load(from_tile + part * V * hidden).to(OPERAND)), h, y)
        if DIRECTION > 0:
            log_w += (warm - cold).to(tl.float64) * slope.to(tl.float64) + rest.to(tl.float64)
        if DIRECTION < 0:
            log_w -= (warm - cold).to(tl.float64) * slope.to(tl.float64) + rest.to(tl.float64)
        t = beta * y + (base + beta * tilt)[:, None]
        e = tl.exp(-tl.abs(t))
        u = _uniform(seed, column, 0, V // 8, k, 1, V)
        new = (u * (1.0 + e) < tl.where(t > 0, 1.0, e)).to(tl.float32)
        v = tl.where(k < steps, new, v)
    tl.store(v_end + place, v, mask=inside)
    tl.store(log_w_end + column, log_w, mask=column < chains)


@torch.no_grad()
def leave_one_out(log_w: Tensor) -> Tensor:
    """log mean weight, each particle in turn guessed by the others; see `unibound.kernels.leave_one_out`."""
    k = len(log_w)
    if k > _MOST:
        return reference.leave_one_out(log_w)
    columns = log_w.detach().reshape(k, -1).contiguous()  # [K, B]
    out = torch.empty_like(columns)
    k_wide = triton.next_power_of_2(k)
    block = max(1, min(64, 4096 // k_wide))
    with torch.cuda.device_of(log_w):
        grid = (triton.cdiv(columns.shape[1], block),)
        if grid[0]:
            _leave_one_out[grid](columns, out, k, columns.shape[1], K=k_wide, BLOCK=block)
    return out.view(log_w.shape)


@triton.jit
def _leave_one_out(log_w, out, k, batch, K: tl.constexpr, BLOCK: tl.constexpr):
    """In float64, where taking one float32 log-weight from a sum of them loses nothing."""
    i = tl.arange(0, K)
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = (i < k)[:, None] & (column < batch)[None, :]
    place = i.to(tl.int64)[:, None] * batch + column[None, :]
    x = tl.load(log_w + place, mask=inside, other=0.0).to(tl.float64)  # [K, BLOCK]
    guess = (tl.sum(x, 0)[None, :] - x) / (k - 1)
    x = tl.where((i < k)[:, None], x, float("-inf"))
    peak = tl.max(x, 0)  # [BLOCK]
    is_top = i[:, None] == tl.argmax(x, 0)[None, :]
    below = tl.where(is_top, float("-inf"), x)
    second = tl.max(below, 0)
    without_top = second + tl.log(tl.sum(tl.exp(below - second[None, :]), 0))
    total = peak + tl.log(tl.sum(tl.exp(x - peak[None, :]), 0))
    share = tl.minimum(tl.exp(x - total[None, :]), 0.5)  # at most half, unless it is the top
    others = tl.where(is_top, without_top[None, :], total[None, :] + tl.log(1.0 - share))
    high = tl.maximum(others, guess)
    result = high + tl.log(tl.exp(others - high) + tl.exp(guess - high)) - tl.log(k.to(tl.float64))
    tl.store(out + place, result, mask=inside)


def bernoulli_log_prob(logits: Tensor, bits: Tensor) -> Tensor:
    """log Bernoulli(bits; sigmoid(logits)) of vectors of bits; see `unibound.kernels.bernoulli_log_prob`."""
    bits = bits.to(logits.dtype)
    if max(logits.dim(), bits.dim()) > 3:
        return reference.bernoulli_log_prob(logits, bits)
    return _BernoulliLogProb.apply(logits, bits)  # type: ignore[no-any-return]


class _BernoulliLogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, bits: Tensor) -> Tensor:
        ctx.save_for_backward(logits, bits)
        shape = torch.broadcast_shapes(logits.shape, bits.shape)
        three = (1,) * (3 - len(shape)) + tuple(shape)
        y, x = (
            logits.detach().expand(three),
            bits.detach().expand(three),
        )  # [K, B, D], strides 0 where broadcast
        out = torch.empty(three[:2], dtype=logits.dtype, device=logits.device)
        if out.numel():
            with torch.cuda.device_of(logits):
                _log_prob[(out.numel(),)](
                    y, x, out, *y.stride(), *x.stride(), three[1], three[2], BLOCK=_width(three[2])
                )
        return out.view(shape[:-1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        logits, bits = ctx.saved_tensors
        grad_logits = grad_bits = None
        if ctx.needs_input_grad[0]:
            grad_logits = _grad_logits(grad, logits, bits)
        if ctx.needs_input_grad[1]:
            grad_bits = (logits * grad[..., None]).sum_to_size(bits.shape)
        return grad_logits, grad_bits


def _grad_logits(grad: Tensor, logits: Tensor, bits: Tensor) -> Tensor:
    shape = (1,) * (2 - grad.dim()) + tuple(grad.shape)  # [K, B]
    three = (1,) * (3 - logits.dim()) + tuple(logits.shape)
    if torch.is_grad_enabled() or three[1] != shape[1] or not grad.numel():
        return ((bits - logits.sigmoid()) * grad[..., None]).sum_to_size(logits.shape)
    y, g = logits.detach().expand(*shape, three[2]), grad.expand(shape)
    x = bits.detach().expand(*shape, three[2])
    out = torch.empty(three, dtype=logits.dtype, device=logits.device)
    repeats = shape[0] // three[0]  # K where one set of logits scored K particles
    block = _width(three[2])
    with torch.cuda.device_of(logits):
        _log_prob_grad[(three[0] * three[1], triton.cdiv(three[2], block))](
            g, y, x, out, *g.stride(), *y.stride(), *x.stride(), three[1], three[2], repeats, BLOCK=block
        )
    return out.view(logits.shape)


def _width(size: int) -> int:
    return max(16, min(1024, triton.next_power_of_2(size)))


@triton.jit
def _log_prob(y_ptr, x_ptr, out, yk, yb, yd, xk, xb, xd, batch, size, BLOCK: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    k, b = program // batch, program % batch
    total = tl.zeros((BLOCK,), y_ptr.dtype.element_ty)
    for start in range(0, size, BLOCK):
        d = start + tl.arange(0, BLOCK)
        y = tl.load(y_ptr + k * yk + b * yb + d * yd, mask=d < size, other=0.0)
        x = tl.load(x_ptr + k * xk + b * xb + d * xd, mask=d < size, other=0.0)
        value = x * y - tl.maximum(y, 0.0) - _log1p(tl.exp(-tl.abs(y)))
        total += tl.where(d < size, value, 0.0)
    tl.store(out + program, tl.sum(total, 0))


@triton.jit
def _log_prob_grad(g_ptr, y_ptr, x_ptr, out, gk, gb, yk, yb, yd, xk, xb, xd, batch, size, repeats, BLOCK: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    k, b = program // batch, program % batch
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    y = tl.load(y_ptr + k * yk + b * yb + d * yd, mask=d < size, other=0.0)
    e = tl.exp(-tl.abs(y))
    p = tl.where(y > 0, 1.0, e) / (1.0 + e)
    total = tl.zeros((BLOCK,), y_ptr.dtype.element_ty)
    for i in range(k, k + repeats):
        x = tl.load(x_ptr + i * xk + b * xb + d * xd, mask=d < size, other=0.0)
        total += tl.load(g_ptr + i * gk + b * gb) * (x - p)
    tl.store(out + program * size + d, total, mask=d < size)


@triton.jit
def _log1p(x):
    """log(1 + x) for x in [0, 1] to the last bits, by the quotient that undoes the rounding of 1 + x."""
    y = 1.0 + x
    return tl.log(y) - tl.where(x > 0, ((y - 1.0) - x) / y, 0.0)
