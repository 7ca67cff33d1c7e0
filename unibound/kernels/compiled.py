"""The sweeps and the free energy of an RBM as compiled loops for the CPU: numba twins of `reference`, float32.

Three things make them fast. A state is binary, so each of their products is a lookup; see `lookup`. Softplus, sigmoid,
random draw and comparison share one pass and one exponential per temperature. The random numbers come from one
xoshiro128++ generator per unit, so that the compiler draws a vector of them at a time.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.extending import intrinsic
from torch import Tensor
from torch.autograd.function import once_differentiable

from unibound.kernels import reference
from unibound.kernels.lookup import add_product, are_bits, encode, encoded, group_count, jit, packed

_BLOCK = 512  # chains that are swept together
_FEWEST = 32  # rows of bits that repay the making of the tables
_SMALL = 2**14  # weights up to which the cost of a call outweighs that of a product
_f = np.float32
_u = np.uint32


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
    if len(v) * steps < _FEWEST:
        return reference.rbm_gibbs(v, weight, visible_bias, hidden_bias, steps, beta=beta, base_bias=base_bias)
    base = torch.zeros_like(visible_bias) if base_bias is None else base_bias
    betas = torch.full((steps + 1,), beta, dtype=torch.float64)
    return _run(v, weight, visible_bias, hidden_bias, base, betas, 0)[0]


def rbm_free_energy(
    v: Tensor,
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    *,
    beta: float = 1.0,
    base_bias: Tensor | None = None,
) -> Tensor:
    """-log f_beta of states, differentiable once in the parameters; see `unibound.kernels.rbm_free_energy`."""
    rows = v.detach().reshape(-1, v.shape[-1]).to(torch.float32)  # [N, V]
    small = len(rows) < _FEWEST or weight.numel() < _SMALL
    if small or beta != 1.0 or v.requires_grad or not are_bits(rows.numpy()):
        return reference.rbm_free_energy(v, weight, visible_bias, hidden_bias, beta=beta, base_bias=base_bias)
    return _FreeEnergy.apply(rows, weight, visible_bias, hidden_bias).view(v.shape[:-1])  # type: ignore[no-any-return]


class _FreeEnergy(torch.autograd.Function):
    """-v'b - sum softplus(c + v'W) of bits v [N, V]; all three products of value and gradient are lookups."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> Tensor:
        x = hidden_bias.repeat(len(v), 1)  # [N, H]
        add_product(encoded(v), packed(weight), x.numpy())
        ctx.save_for_backward(v, x)
        free = v @ -visible_bias  # [N]
        _subtract_softplus(x.numpy(), free.numpy())
        return free

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor, Tensor]:  # type: ignore[override]
        v, x = ctx.saved_tensors
        grad = -grad  # [N]
        hidden = x.sigmoid().mul_(grad[:, None])  # [N, H]
        grad_weight = torch.zeros(v.shape[1], x.shape[1])
        add_product(encoded(v.T), packed(hidden), grad_weight.numpy())
        return None, grad_weight, grad @ v, hidden.sum(0)


def rbm_ais(
    v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, base_bias: Tensor, betas: Tensor
) -> tuple[Tensor, Tensor]:
    """Forward annealing: weigh at each new temperature, then move; see `unibound.kernels.rbm_ais`."""
    return _run(v, weight, visible_bias, hidden_bias, base_bias, betas, 1)


def rbm_reverse_ais(
    v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, base_bias: Tensor, betas: Tensor
) -> tuple[Tensor, Tensor]:
    """Reverse annealing: move at each temperature, then weigh; see `unibound.kernels.rbm_reverse_ais`."""
    return _run(v, weight, visible_bias, hidden_bias, base_bias, betas, -1)


def _run(
    v: Tensor,
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    base: Tensor,
    betas: Tensor,
    direction: int,
) -> tuple[Tensor, Tensor]:
    b, c, a = (t.detach().numpy() for t in (visible_bias, hidden_bias, base))
    state = v.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)  # [M, V]
    log_w = torch.zeros(len(v), dtype=torch.float64)  # [M]
    lanes = torch.randint(-(2**31), 2**31, (4, max(weight.shape)), dtype=torch.int32).numpy().view(np.uint32)
    # Rounded once, so that what one step calls warm the next calls cold.
    temperatures = betas.float().contiguous().numpy()
    _sweep(state.numpy(), packed(weight), packed(weight.T), b, c, a, temperatures, direction, lanes, log_w.numpy())
    return state, log_w


@intrinsic
def _as_float(typing_context: Any, bits: Any) -> Any:
    """The float32 with the bit pattern of an int32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return numba.float32(numba.int32), generate


_inline = numba.njit(inline="always")


@_inline
def _exp2m1(t):
    """2^t as (2^n, 2^n (2^r - 1)) with n + r = t and |r| <= 1/2: 2^t - 1 keeps its relative precision near t = 0."""
    n = np.floor(t + _f(0.5))
    r = t - n
    q = r * (
        _f(0.69314718)
        + r
        * (
            _f(0.24022651)
            + r
            * (
                _f(0.055504109)
                + r * (_f(0.0096181291) + r * (_f(0.0013333558) + r * (_f(0.00015403530) + r * _f(1.5252734e-5))))
            )
        )
    )
    power = _as_float(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))
    return power, power * q


@jit
def _draw(s0, s1, s2, s3, out):
    """One xoshiro128++ step per lane: uniforms on (0, 1), the midpoints of 2^23 intervals."""
    for j in range(out.shape[0]):
        a, b, c, d = s0[j], s1[j], s2[j], s3[j]
        x = _u(a + d)
        x = _u(_u(_u(x << _u(7)) | _u(x >> _u(25))) + a)
        out[j] = (_f(np.int32(x >> _u(9))) + _f(0.5)) * _f(2.0**-23)
        t = _u(b << _u(9))
        c = _u(c ^ a)
        d = _u(d ^ b)
        s1[j] = _u(b ^ c)
        s0[j] = _u(a ^ d)
        s2[j] = _u(c ^ t)
        s3[j] = _u(_u(d << _u(11)) | _u(d >> _u(21)))


@jit
def _weigh(x, cold, step):
    """sum_j softplus((cold + step) x_j) - softplus(cold x_j)."""
    relu = _f(0)
    rest = _f(0)
    for j in range(x.shape[0]):
        size = min(abs(x[j]) * _f(1.442695041), _f(1e30))
        relu += max(x[j], _f(0))
        e0, m0 = _exp2m1(max(-cold * size, _f(-120)))
        e0 += m0
        e1, m1 = _exp2m1(max(-step * size, _f(-120)))
        change = e0 * (m1 + (e1 - _f(1)))  # exp(-warm |x|) - exp(-cold |x|)
        s = change / (_f(2) + _f(2) * e0 + change)
        z = s * s
        rest += s * (
            _f(2)
            + z * (_f(2 / 3) + z * (_f(2 / 5) + z * (_f(2 / 7) + z * (_f(2 / 9) + z * (_f(2 / 11) + z * _f(2 / 13))))))
        )
    return relu, rest


@jit
def _subtract_softplus(x, out):
    """out[m] -= sum_j softplus(x_mj)."""
    for m in range(x.shape[0]):
        relu, rest = _weigh(x[m], _f(0), _f(1))
        out[m] -= relu + rest + _f(0.69314718) * x.shape[1]


@jit
def _sample(x, scale, bias, uniform, bits):
    """bits ~ sigmoid(scale x + bias)."""
    for j in range(x.shape[0]):
        t = -(scale * x[j] + bias[j]) * _f(1.442695041)
        e, m = _exp2m1(min(max(t, _f(-120)), _f(120)))
        bits[j] = np.uint8(uniform[j] * (_f(1) + (e + m)) < _f(1))


@jit
def _sweep(v, to_hidden, to_visible, b, c, a, betas, direction, lanes, log_w):
    """All temperatures, one block of chains after the other. `direction`: 1 up, -1 down, 0 without weights."""
    chains, visible = v.shape
    hidden = c.shape[0]
    block = min(_BLOCK, chains)
    x, y = np.empty((block, hidden), np.float32), np.empty((block, visible), np.float32)
    v_codes = np.empty((block, group_count(visible)), np.uint8)
    h_codes = np.empty((block, group_count(hidden)), np.uint8)
    v_bits = np.zeros((block, 4 * v_codes.shape[1]), np.uint8)
    h_bits = np.zeros(4 * h_codes.shape[1], np.uint8)
    s0, s1, s2, s3 = lanes[0], lanes[1], lanes[2], lanes[3]
    uniform = np.empty(lanes.shape[1], np.float32)
    bias = np.empty(visible, np.float32)
    no_bias = np.zeros(hidden, np.float32)
    last = betas.shape[0] - 1
    for start in range(0, chains, block):
        count = min(block, chains - start)
        for m in range(count):
            for i in range(visible):
                v_bits[m, i] = np.uint8(v[start + m, i] != _f(0))
            encode(v_bits[m], v_codes[m])
        for k in range(last + 1):
            # Upward the pair (k, k + 1) is weighed before the move at k + 1, downward (k - 1, k) after the
            # move at k - 1.
            other = k + direction
            weighs = direction != 0 and 0 <= other <= last
            if k == last and not weighs:
                break
            for m in range(count):
                x[m] = c
            add_product(v_codes[:count], to_hidden, x[:count])
            if weighs:
                step = betas[other] - betas[k]
                for m in range(count):
                    relu, rest = _weigh(x[m], betas[k], step)
                    tilt = _f(0)
                    for i in range(visible):
                        tilt += (b[i] - a[i]) * _f(v_bits[m, i])
                    gain = np.float64(step) * (np.float64(relu) + np.float64(tilt)) + np.float64(rest)
                    log_w[start + m] += direction * gain
            if k == last:
                break
            beta = betas[max(other, k)]
            for i in range(visible):
                bias[i] = a[i] + beta * (b[i] - a[i])
            for m in range(count):
                _draw(s0, s1, s2, s3, uniform[:hidden])
                _sample(x[m], beta, no_bias, uniform, h_bits)
                encode(h_bits, h_codes[m])
                y[m] = _f(0)
            add_product(h_codes[:count], to_visible, y[:count])
            for m in range(count):
                _draw(s0, s1, s2, s3, uniform[:visible])
                _sample(y[m], beta, bias, uniform, v_bits[m])
                encode(v_bits[m], v_codes[m])
        for m in range(count):
            for i in range(visible):
                v[start + m, i] = _f(v_bits[m, i])
