"""One pass over reals in a cache: numba functions for float32 on a CPU, that the compiler makes vector loops of.

Exponentials, softplus, random draws and their comparison are made together where they are needed together, from one
exponential. The random numbers come from one xoshiro128++ generator per unit, so that a vector of them is drawn at a
time. Numba keeps what it compiled of another file until that changes: after a change here, touch `compiled`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from unibound.kernels.lookup import jit

_f = np.float32
_u = np.uint32


@intrinsic
def _as_float(typing_context: Any, bits: Any) -> Any:
    """The float32 with the bit pattern of an int32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return numba.float32(numba.int32), generate


_inline = numba.njit(inline="always")


@_inline
def exp2m1(t):
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
def draw(s0, s1, s2, s3, out):
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
def weigh(x, cold, step):
    """sum_j softplus((cold + step) x_j) - softplus(cold x_j)."""
    relu = _f(0)
    rest = _f(0)
    for j in range(x.shape[0]):
        size = min(abs(x[j]) * _f(1.442695041), _f(1e30))
        relu += max(x[j], _f(0))
        e0, m0 = exp2m1(max(-cold * size, _f(-120)))
        e0 += m0
        e1, m1 = exp2m1(max(-step * size, _f(-120)))
        change = e0 * (m1 + (e1 - _f(1)))  # exp(-warm |x|) - exp(-cold |x|)
        s = change / (_f(2) + _f(2) * e0 + change)
        z = s * s
        rest += s * (
            _f(2)
            + z * (_f(2 / 3) + z * (_f(2 / 5) + z * (_f(2 / 7) + z * (_f(2 / 9) + z * (_f(2 / 11) + z * _f(2 / 13))))))
        )
    return relu, rest


@jit
def subtract_softplus(x, out):
    """out[m] -= sum_j softplus(x_mj)."""
    for m in range(x.shape[0]):
        relu, rest = weigh(x[m], _f(0), _f(1))
        out[m] -= relu + rest + _f(0.69314718) * x.shape[1]


@jit
def sample(x, scale, bias, uniform, bits):
    """bits ~ sigmoid(scale x + bias)."""
    for j in range(x.shape[0]):
        t = -(scale * x[j] + bias[j]) * _f(1.442695041)
        e, m = exp2m1(min(max(t, _f(-120)), _f(120)))
        bits[j] = np.uint8(uniform[j] * (_f(1) + (e + m)) < _f(1))


@jit
def log_prob(y, x, out):
    """out[n] = sum_d x_d y_nd - softplus(y_nd), of logits y [N, D] and bits x [M, D] that recur with the rows of y."""
    for n in range(y.shape[0]):
        m = n % x.shape[0]
        total = _f(0)
        for start in range(0, y.shape[1], 64):  # a product of as many factors, each at most 2, cannot overflow
            product = _f(1)
            part = _f(0)
            for d in range(start, min(start + 64, y.shape[1])):
                e, q = exp2m1(max(-abs(y[n, d]) * _f(1.442695041), _f(-120)))
                product *= _f(1) + (e + q)
                part += x[m, d] * y[n, d] - max(y[n, d], _f(0))
            total += part - np.log(product)
        out[n] = total


@jit
def log_prob_gradient(grad, y, x, out):
    """out[n, d] = grad_n (x_d - sigmoid(y_nd))."""
    for n in range(y.shape[0]):
        m = n % x.shape[0]
        for d in range(y.shape[1]):
            e, q = exp2m1(min(max(-y[n, d] * _f(1.442695041), _f(-120)), _f(120)))
            out[n, d] = grad[n] * (x[m, d] - _f(1) / (_f(1) + (e + q)))
