"""Gibbs and annealing sweeps of an RBM written out by hand, in place: the reference rows of the kernels' benches."""

from itertools import pairwise

import attrs
import torch
from torch import Tensor
from torch.nn.functional import softplus


@attrs.frozen(eq=False)
class Machine:
    """A random RBM and chains to run on it."""

    weight: Tensor  # [V, H]
    visible_bias: Tensor  # [V]
    hidden_bias: Tensor  # [H]
    v: Tensor  # [M, V]

    @classmethod
    def random(cls, visible: int, hidden: int, chains: int) -> "Machine":
        torch.manual_seed(0)
        return cls(
            0.1 * torch.randn(visible, hidden),
            0.3 * torch.randn(visible),
            0.3 * torch.randn(hidden),
            (torch.rand(chains, visible) < 0.5).float(),
        )

    @property
    def parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.weight, self.visible_bias, self.hidden_bias


@torch.no_grad()
def gibbs(machine: Machine, steps: int) -> Tensor:
    """Block Gibbs steps in preallocated buffers."""
    v, (w, b, c) = machine.v.clone(), machine.parameters
    p_h, h, p_v = v.new_empty(len(v), len(c)), v.new_empty(len(v), len(c)), torch.empty_like(v)
    for _ in range(steps):
        torch.addmm(c, v, w, out=p_h).sigmoid_()
        h.uniform_().lt_(p_h)
        torch.addmm(b, h, w.T, out=p_v).sigmoid_()
        v.uniform_().lt_(p_v)
    return v


@torch.no_grad()
def ais(machine: Machine, betas: list[float], shared_exp: bool) -> Tensor:
    """Annealing from a uniform base; softplus and sigmoid each by itself, or both from one exponential."""
    v, (w, b, c) = machine.v.clone(), machine.parameters
    activation, scratch, h = (v.new_empty(len(v), len(c)) for _ in range(3))
    p_v, log_w = torch.empty_like(v), torch.zeros(len(v), dtype=torch.float64)
    for cold, warm in pairwise(betas):
        torch.addmm(c, v, w, out=activation)
        log_w += (warm - cold) * (v @ b).double()
        if shared_exp:
            log_w -= torch.mul(activation, cold, out=scratch).exp_().log1p_().sum(1).double()
            torch.mul(activation, warm, out=scratch).exp_()
            torch.add(scratch, 1, out=h)
            scratch.div_(h)  # sigmoid
            log_w += h.log_().sum(1).double()
        else:
            log_w -= softplus(torch.mul(activation, cold, out=h)).sum(1).double()
            log_w += softplus(torch.mul(activation, warm, out=scratch)).sum(1).double()
            scratch.sigmoid_()
        h.uniform_().lt_(scratch)
        torch.addmm(warm * b, h, w.T, alpha=warm, out=p_v).sigmoid_()
        v.uniform_().lt_(p_v)
    return log_w
