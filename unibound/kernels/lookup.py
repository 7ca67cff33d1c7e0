"""Bits times reals by table lookup: numba functions for float32 on a CPU.

    out += bits @ w,   bits [M, K] in {0, 1},  w [K, N]

For every four rows of w the 16 sums that four bits can choose are tabulated, and four multiplications become one
addition; in float32, so no narrower than the product itself. A table is made when it is needed and dropped: eight of
them, 32 columns wide, fit the nearest cache, and making them costs as much as adding up 16 rows. This is the method of
four Russians, of Arlazarov, Dinic, Kronrod and Faradzev (1970).

The two inner loops are written in vector instructions, since the compiler cannot know that tables, codes and sums do
not overlap. Numba keeps what it compiled of another file until that changes: after a change here, touch `compiled`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from torch import Tensor

WIDTH = 32  # columns of a panel
_TABLES = 8  # tables in use at once, 16 KiB
_LANES = 8  # floats of a vector
_ROW = 4 * WIDTH  # bytes
_BITS = 4  # of a code
_ROWS = 1024  # rows summed up by one set of tables
_TABLE = _ROW << _BITS  # bytes
_vector = ir.VectorType(ir.FloatType(), _LANES)
_word = ir.IntType(64)

jit = numba.njit(cache=True, nogil=True, fastmath={"nsz", "arcp", "contract", "afn", "reassoc"}, error_model="numpy")


@jit
def group_count(rows: int) -> int:
    """Number of codes G that hold so many bits: four bits each, and whole blocks of tables."""
    return -(-rows // (_BITS * _TABLES)) * _TABLES


@jit
def encode(bits, codes):
    """The codes [G] of one row of bits [4 G]: code g is of bits g, G + g, 2 G + g and 3 G + g."""
    groups = codes.shape[0]
    for g in range(groups):
        codes[g] = bits[g] | bits[groups + g] << 1 | bits[2 * groups + g] << 2 | bits[3 * groups + g] << 3


@jit
def are_bits(values):
    """Whether values [M, K] are zeros and ones."""
    off = np.float32(0)
    for m in range(values.shape[0]):
        for k in range(values.shape[1]):
            off += abs(values[m, k] * (values[m, k] - np.float32(1)))
    return off == np.float32(0)


@jit
def _encode_all(bits, codes):
    row = np.zeros(4 * codes.shape[1], np.uint8)
    for m in range(bits.shape[0]):
        for k in range(bits.shape[1]):
            row[k] = np.uint8(bits[m, k] != np.float32(0))
        encode(row, codes[m])


def encoded(bits: Tensor) -> np.ndarray:
    """What `add_product` takes for bits [M, K], of any strides: their codes [M, G]."""
    codes = np.empty((len(bits), group_count(bits.shape[1])), np.uint8)
    _encode_all(bits.numpy(), codes)
    return codes


@jit
def _pack(w, panels):
    """Cut w [K, N], of any strides, into panels [N / 32, 4 G, 32], zeros around it."""
    rows, columns = w.shape
    for p in range(panels.shape[0]):
        width = min(WIDTH, columns - WIDTH * p)
        if width < WIDTH:
            panels[p] = np.float32(0)
        panels[p, rows:] = np.float32(0)
        for k in range(rows):
            for i in range(width):
                panels[p, k, i] = w[k, WIDTH * p + i]


def packed(w: Tensor) -> np.ndarray:
    """What `add_product` takes for w [K, N]: its panels."""
    rows, columns = w.shape
    # torch aligns what it allocates to cache lines, numpy does not, and a load that straddles two of them costs double.
    panels = torch.empty(-(-columns // WIDTH), _BITS * group_count(rows), WIDTH).numpy()
    _pack(w.detach().numpy(), panels)
    return panels


def _at(builder: Any, address: Any, offset: int) -> Any:
    return builder.inttoptr(builder.add(address, ir.Constant(_word, offset)), _vector.as_pointer())


@intrinsic
def _tabulate(typing_context: Any, row: Any, stride: Any, table: Any) -> Any:
    """Write the 16 sums of four rows, `stride` bytes apart, into a table; all three are addresses."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first, stride, table = args
        rows = [first]
        for _ in range(_BITS - 1):
            rows.append(builder.add(rows[-1], stride))
        for column in range(0, _ROW, 4 * _LANES):
            sums = [ir.Constant(_vector, [0.0] * _LANES)]
            for row in rows:
                values = builder.load(_at(builder, row, column), align=4)
                sums += [builder.fadd(some, values) for some in sums]
            for code, some in enumerate(sums):
                builder.store(some, _at(builder, table, _ROW * code + column), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@intrinsic
def _accumulate(typing_context: Any, tables: Any, codes: Any, out: Any) -> Any:
    """Add to a row of 32 sums the rows that eight successive codes name, each in its table; all are addresses."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tables, codes, out = args
        rows = []
        for k in range(_TABLES):
            pointer = builder.inttoptr(builder.add(codes, ir.Constant(_word, k)), ir.IntType(8).as_pointer())
            offset = builder.mul(builder.zext(builder.load(pointer), _word), ir.Constant(_word, _ROW))
            rows.append(builder.add(tables, offset))
        for column in range(0, _ROW, 4 * _LANES):
            terms = [builder.load(_at(builder, row, _TABLE * k + column), align=4) for k, row in enumerate(rows)]
            while len(terms) > 1:
                terms = [builder.fadd(a, b) for a, b in zip(terms[::2], terms[1::2], strict=True)]
            place = _at(builder, out, column)
            builder.store(builder.fadd(builder.load(place, align=4), terms[0]), place, align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@jit
def add_product(codes, panels, out):
    """out [M, N] += bits @ w, of codes [M, G] and panels."""
    groups = codes.shape[1]
    sums = np.empty((min(_ROWS, codes.shape[0]), WIDTH), np.float32)
    tables = np.empty(_TABLES * _TABLE // 4 + 16, np.float32)
    skip = -tables.ctypes.data % 64  # to the start of a cache line
    for p in range(panels.shape[0]):
        width = min(WIDTH, out.shape[1] - WIDTH * p)
        for first in range(0, codes.shape[0], _ROWS):
            count = min(_ROWS, codes.shape[0] - first)
            sums[:count] = np.float32(0)
            for g in range(0, groups, _TABLES):
                # Asked for here, and not once before: numba frees an array after the last line that names it.
                at_tables = tables.ctypes.data + skip
                for k in range(_TABLES):
                    row = panels.ctypes.data + (p * _BITS * groups + g + k) * _ROW
                    _tabulate(row, groups * _ROW, at_tables + k * _TABLE)
                for m in range(count):
                    _accumulate(at_tables, codes.ctypes.data + (first + m) * groups + g, sums.ctypes.data + m * _ROW)
            for m in range(count):
                for i in range(width):
                    out[first + m, WIDTH * p + i] += sums[m, i]
