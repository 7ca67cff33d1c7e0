"""The sweeps as one compiled loop for the CPU: numba twins of `reference`, float32.

Three things make them fast. A state is binary, so a row of v'W is a sum of table rows: for every four rows of
W the 16 possible sums are tabulated once (in float32, no narrower than the product itself), and four
multiplications become one addition. Softplus, sigmoid, random draw and comparison share one pass and one
exponential per temperature. The random numbers come from one xoshiro128++ generator per unit, so that the
compiler draws a vector of them at a time.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.extending import intrinsic
from torch import Tensor
from torch.nn import functional as F

from unibound.kernels import reference

_BLOCK = 128  # chains that are swept together
_WIDE = 8  # table rows added at once
_FEWEST = 400  # chain-steps that repay the making of the tables
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
    weight, b, c, a = (t.detach() for t in (weight, visible_bias, hidden_bias, base))
    state = v.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)  # [M, V]
    log_w = torch.zeros(len(v), dtype=torch.float64)  # [M]
    to_hidden, to_visible = _tables(weight), _tables(weight.T)
    h, v_wide, h_wide = len(c), to_visible.shape[1], to_hidden.shape[1]
    lanes = torch.randint(-(2**31), 2**31, (4, max(v_wide, h_wide)), dtype=torch.int32).numpy().view(np.uint32)
    b, a, c = (F.pad(t, (0, wide - len(t))).contiguous().numpy() for t, wide in ((b, v_wide), (a, v_wide), (c, h_wide)))
    # torch aligns what it allocates to cache lines, numpy does not, and a load that straddles two of them
    # costs double.
    x, y = torch.empty(_BLOCK, h_wide).numpy(), torch.empty(_BLOCK, v_wide).numpy()
    temperatures = (
        betas.float().contiguous().numpy()
    )  # rounded once, so that what one step calls warm the next calls cold
    _sweep(
        state.numpy(),
        to_hidden.numpy(),
        to_visible.numpy(),
        b,
        c,
        a,
        temperatures,
        direction,
        lanes,
        x,
        y,
        h,
        log_w.numpy(),
    )
    return state, log_w


def _tables(weight: Tensor) -> Tensor:
    """Row 16 g + p holds the sum of the rows g, g + G, g + 2G, g + 3G that the bits of p choose."""
    rows, columns = weight.shape
    groups = -(-rows // (4 * _WIDE)) * _WIDE
    quads = F.pad(weight, (0, -columns % 16, 0, 4 * groups - rows)).reshape(4, groups, -1)  # [4, G, columns]
    out = quads.new_zeros(groups, 16, quads.shape[2])
    for bit in range(4):
        size = 2**bit
        torch.add(out[:, :size], quads[bit, :, None], out=out[:, size : 2 * size])
    return out.flatten(0, 1)


@intrinsic
def _as_float(typing_context: Any, bits: Any) -> Any:
    """The float32 with the bit pattern of an int32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return numba.float32(numba.int32), generate


_jit = numba.njit(cache=True, fastmath={"nsz", "arcp", "contract", "afn", "reassoc"}, error_model="numpy")
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


@_jit
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


@_jit
def _look_up(tables, codes, out):
    """out[m] += the sum of the table rows that codes[m] names, `_WIDE` of them at a time."""
    for g in range(0, codes.shape[1], 8):
        for m in range(out.shape[0]):
            r0 = tables[codes[m, g]]
            r1 = tables[codes[m, g + 1]]
            r2 = tables[codes[m, g + 2]]
            r3 = tables[codes[m, g + 3]]
            r4 = tables[codes[m, g + 4]]
            r5 = tables[codes[m, g + 5]]
            r6 = tables[codes[m, g + 6]]
            r7 = tables[codes[m, g + 7]]
            row = out[m]
            for j in range(row.shape[0]):
                row[j] += ((r0[j] + r1[j]) + (r2[j] + r3[j])) + ((r4[j] + r5[j]) + (r6[j] + r7[j]))


@_jit
def _encode(bits, codes):
    """The table rows that the bits of units g, g + G, g + 2G and g + 3G choose, for every g."""
    groups = codes.shape[0]
    for g in range(groups):
        pattern = bits[g] | bits[groups + g] << 1 | bits[2 * groups + g] << 2 | bits[3 * groups + g] << 3
        codes[g] = _u(16 * g + pattern)


@_jit
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


@_jit
def _sample(x, scale, bias, uniform, bits):
    """bits ~ sigmoid(scale x + bias)."""
    for j in range(x.shape[0]):
        t = -(scale * x[j] + bias[j]) * _f(1.442695041)
        e, m = _exp2m1(min(max(t, _f(-120)), _f(120)))
        bits[j] = np.uint8(uniform[j] * (_f(1) + (e + m)) < _f(1))


@_jit
def _sweep(v, to_hidden, to_visible, b, c, a, betas, direction, lanes, x, y, hidden, log_w):
    """All temperatures, one block of chains after the other. `direction`: 1 up, -1 down, 0 without weights."""
    chains, visible = v.shape
    v_groups, h_groups = to_hidden.shape[0] // 16, to_visible.shape[0] // 16
    s0, s1, s2, s3 = lanes[0], lanes[1], lanes[2], lanes[3]
    uniform = np.empty(lanes.shape[1], np.float32)
    bias = np.empty(b.shape[0], np.float32)
    no_bias = np.zeros(c.shape[0], np.float32)
    v_bits = np.zeros((_BLOCK, 4 * v_groups), np.uint8)
    h_bits = np.zeros(4 * h_groups, np.uint8)
    v_codes = np.zeros((_BLOCK, v_groups), np.uint32)
    h_codes = np.zeros((_BLOCK, h_groups), np.uint32)
    last = betas.shape[0] - 1
    for start in range(0, chains, _BLOCK):
        count = min(_BLOCK, chains - start)
        for m in range(count):
            for i in range(visible):
                v_bits[m, i] = np.uint8(v[start + m, i] != _f(0))
            _encode(v_bits[m], v_codes[m])
        for k in range(last + 1):
            for m in range(count):
                x[m] = c
            _look_up(to_hidden, v_codes, x[:count])
            # Upward the pair (k, k + 1) is weighed before the move at k + 1, downward (k - 1, k) after the
            # move at k - 1.
            other = k + direction
            if direction != 0 and 0 <= other <= last:
                step = betas[other] - betas[k]
                for m in range(count):
                    relu, rest = _weigh(x[m, :hidden], betas[k], step)
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
                _draw(s0, s1, s2, s3, uniform[: c.shape[0]])
                _sample(x[m, :hidden], beta, no_bias, uniform, h_bits)
                _encode(h_bits, h_codes[m])
                y[m] = _f(0)
            _look_up(to_visible, h_codes, y[:count])
            for m in range(count):
                _draw(s0, s1, s2, s3, uniform[: b.shape[0]])
                _sample(y[m, :visible], beta, bias, uniform, v_bits[m])
                _encode(v_bits[m], v_codes[m])
        for m in range(count):
            for i in range(visible):
                v[start + m, i] = _f(v_bits[m, i])
