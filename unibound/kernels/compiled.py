"""What concerns an RBM as compiled loops for the CPU: numba twins of `reference`; that for bits is in `bits`.

Two things make them fast, in float32. A state is binary, so each of their products is a lookup; see `lookup`. Softplus,
sigmoid, random draw and comparison share one pass and one exponential; see `passes`. Blocks of chains are independent,
draw from generators of their own, and are shared by as many threads as torch is given, which changes no draw.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unibound.kernels import reference
from unibound.kernels.bits import bernoulli_log_prob
from unibound.kernels.compiling import announce
from unibound.kernels.lookup import add_product, are_bits, encode, encoded, group_count, jit, packed
from unibound.kernels.passes import draw, sample, subtract_softplus, weigh

__all__ = ["bernoulli_log_prob", "rbm_ais", "rbm_contrast", "rbm_free_energy", "rbm_gibbs", "rbm_reverse_ais"]

_BLOCK = 256  # chains that are swept together
_ROWS = 1024  # states whose free energy is found together
_FEWEST = 32  # rows of bits that repay the making of the tables
_SMALL = 2**14  # weights up to which the cost of a call outweighs that of a product
_f = np.float32

announce()


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
    if beta != 1.0 or v.requires_grad or not _repays(rows, weight):
        return reference.rbm_free_energy(v, weight, visible_bias, hidden_bias, beta=beta, base_bias=base_bias)
    x = _activations(rows, packed(weight), hidden_bias)
    return _FreeEnergy.apply(rows, x, weight, visible_bias, hidden_bias).view(v.shape[:-1])  # type: ignore[no-any-return]


def rbm_contrast(
    v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Free energies of states and of where they move; see `unibound.kernels.rbm_contrast`.

    The weight is packed once, and what the hidden units of the states are drawn by is kept for the gradient.
    """
    start = v.detach().to(torch.float32)  # [M, V]
    if steps < 1 or v.requires_grad or not _repays(start, weight):
        return reference.rbm_contrast(v, weight, visible_bias, hidden_bias, steps)
    to_hidden, to_visible = packed(weight), packed(weight.T)
    first = x = _activations(start, to_hidden, hidden_bias)
    end, lanes = torch.empty_like(start, memory_format=torch.contiguous_format), _lanes(1, weight)[0]
    for _ in range(steps):
        _descend(x.numpy(), to_visible, visible_bias.detach().numpy(), lanes, end.numpy())
        x = _activations(end, to_hidden, hidden_bias)
    both = torch.cat([start, end]), torch.cat([first, x])
    free = _FreeEnergy.apply(*both, weight, visible_bias, hidden_bias)
    return free[: len(v)], free[len(v) :]  # type: ignore[index]


def _repays(rows: Tensor, weight: Tensor) -> bool:
    """Whether states [N, V] are bits, and enough of them."""
    return len(rows) >= _FEWEST and weight.numel() >= _SMALL and bool(are_bits(rows.numpy()))


def _activations(v: Tensor, panels: np.ndarray, hidden_bias: Tensor) -> Tensor:
    """c + v'W of bits v [N, V]: [N, H]."""
    x = hidden_bias.detach().repeat(len(v), 1)

    def some(rows: slice) -> None:
        add_product(encoded(v[rows]), panels, x[rows].numpy())

    _share(some, len(v), _ROWS)
    return x


class _FreeEnergy(torch.autograd.Function):
    """-v'b - sum softplus(x) of bits v [N, V] and x = c + v'W [N, H]; the product of the gradient is a lookup too."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, x: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> Tensor:
        ctx.save_for_backward(v, x)
        free = v @ -visible_bias  # [N]
        _share(lambda rows: subtract_softplus(x[rows].numpy(), free[rows].numpy()), len(v), _ROWS)
        return free

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor, Tensor, Tensor]:  # type: ignore[override]
        v, x = ctx.saved_tensors
        grad = -grad  # [N]
        hidden = x.sigmoid().mul_(grad[:, None])  # [N, H]
        grad_weight = torch.zeros(v.shape[1], x.shape[1])
        add_product(encoded(v.T), packed(hidden), grad_weight.numpy())
        return None, None, grad_weight, grad @ v, hidden.sum(0)


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
    lanes = _lanes(-(-len(v) // _BLOCK), weight)
    # Rounded once, so that what one step calls warm the next calls cold.
    temperatures = betas.float().contiguous().numpy()
    to_hidden, to_visible = packed(weight), packed(weight.T)

    def some(rows: slice) -> None:
        own = lanes[rows.start // _BLOCK]
        states, weights = state[rows].numpy(), log_w[rows].numpy()
        _sweep(states, to_hidden, to_visible, b, c, a, temperatures, direction, own, weights)

    _share(some, len(v), _BLOCK)
    return state, log_w


def _lanes(blocks: int, weight: Tensor) -> np.ndarray:
    """States of the generators of each block: [blocks, 4, units]."""
    size = (blocks, 4, max(weight.shape))
    return torch.randint(-(2**31), 2**31, size, dtype=torch.int32).numpy().view(np.uint32)


def _share(work: Callable[[slice], None], count: int, size: int) -> None:
    """Do work on blocks of so many rows, in the threads that torch is given; it lets go of the interpreter's lock."""
    blocks = [slice(first, min(first + size, count)) for first in range(0, count, size)]
    if (threads := min(torch.get_num_threads(), len(blocks))) < 2:
        for block in blocks:
            work(block)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, blocks))


@jit
def _descend(x, to_visible, b, lanes, v):
    """v [M, V] ~ p(v | h) of h ~ p(h | x), by activations x [M, H] of the hidden units."""
    count, hidden = x.shape
    visible = v.shape[1]
    codes = np.empty((count, group_count(hidden)), np.uint8)
    bits = np.zeros(max(4 * codes.shape[1], visible), np.uint8)
    uniform = np.empty(lanes.shape[1], np.float32)
    no_bias = np.zeros(hidden, np.float32)
    for m in range(count):
        draw(lanes[0], lanes[1], lanes[2], lanes[3], uniform[:hidden])
        sample(x[m], _f(1), no_bias, uniform, bits)
        encode(bits[: 4 * codes.shape[1]], codes[m])
        v[m] = _f(0)
    add_product(codes, to_visible, v)
    for m in range(count):
        draw(lanes[0], lanes[1], lanes[2], lanes[3], uniform[:visible])
        sample(v[m], _f(1), b, uniform, bits)
        for i in range(visible):
            v[m, i] = _f(bits[i])


@jit
def _sweep(v, to_hidden, to_visible, b, c, a, betas, direction, lanes, log_w):
    """All temperatures of one block of chains. `direction`: 1 up, -1 down, 0 without weights."""
    count, visible = v.shape
    hidden = c.shape[0]
    x, y = np.empty((count, hidden), np.float32), np.empty((count, visible), np.float32)
    v_codes = np.empty((count, group_count(visible)), np.uint8)
    h_codes = np.empty((count, group_count(hidden)), np.uint8)
    v_bits = np.zeros((count, 4 * v_codes.shape[1]), np.uint8)
    h_bits = np.zeros(4 * h_codes.shape[1], np.uint8)
    s0, s1, s2, s3 = lanes[0], lanes[1], lanes[2], lanes[3]
    uniform = np.empty(lanes.shape[1], np.float32)
    bias = np.empty(visible, np.float32)
    no_bias = np.zeros(hidden, np.float32)
    last = betas.shape[0] - 1
    for m in range(count):
        for i in range(visible):
            v_bits[m, i] = np.uint8(v[m, i] != _f(0))
        encode(v_bits[m], v_codes[m])
    for k in range(last + 1):
        # Upward the pair (k, k + 1) is weighed before the move at k + 1, downward (k - 1, k) after the move at k - 1.
        other = k + direction
        weighs = direction != 0 and 0 <= other <= last
        if k == last and not weighs:
            break
        for m in range(count):
            x[m] = c
        add_product(v_codes, to_hidden, x)
        if weighs:
            step = betas[other] - betas[k]
            for m in range(count):
                relu, rest = weigh(x[m], betas[k], step)
                tilt = _f(0)
                for i in range(visible):
                    tilt += (b[i] - a[i]) * _f(v_bits[m, i])
                gain = np.float64(step) * (np.float64(relu) + np.float64(tilt)) + np.float64(rest)
                log_w[m] += direction * gain
        if k == last:
            break
        beta = betas[max(other, k)]
        for i in range(visible):
            bias[i] = a[i] + beta * (b[i] - a[i])
        for m in range(count):
            draw(s0, s1, s2, s3, uniform[:hidden])
            sample(x[m], beta, no_bias, uniform, h_bits)
            encode(h_bits, h_codes[m])
            y[m] = _f(0)
        add_product(h_codes, to_visible, y)
        for m in range(count):
            draw(s0, s1, s2, s3, uniform[:visible])
            sample(y[m], beta, bias, uniform, v_bits[m])
            encode(v_bits[m], v_codes[m])
    for m in range(count):
        for i in range(visible):
            v[m, i] = _f(v_bits[m, i])
