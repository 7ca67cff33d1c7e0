"""Sweeps of an RBM and a training step written out by hand in plain PyTorch: what `unibound bench` measures against.

Nothing is abstracted, and everything that makes a plain loop fast is used: buffers in place, a fused Adam, and
`rand < p` for bits.
"""

import math
from itertools import pairwise

import attrs
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
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
        """One of this size, the same each time."""
        torch.manual_seed(0)
        return cls(
            0.1 * torch.randn(visible, hidden),
            0.3 * torch.randn(visible),
            0.3 * torch.randn(hidden),
            (torch.rand(chains, visible) < 0.5).float(),
        )

    @property
    def parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weight and biases, as kernels take them."""
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


def network(widths: list[int]) -> nn.Sequential:
    """Linear layers with ELU between them."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ELU()]
    return nn.Sequential(*layers[:-1])


def vimco(log_w: Tensor, log_q: Tensor) -> Tensor:
    """What VIMCO climbs, of log-weights and log q [K, B]: [B]."""
    k = len(log_w)
    bound = log_w.logsumexp(0) - math.log(k)
    with torch.no_grad():
        others = (log_w.sum(0) - log_w) / (k - 1)
        replaced = log_w.expand(k, -1, -1).clone()  # [K, K, B]
        replaced.diagonal().copy_(others.T)
        signal = bound - (replaced.logsumexp(1) - math.log(k))
    return (signal * log_q).sum(0) + bound


class VimcoRBM:
    """VIMCO with an RBM prior trained by persistent chains."""

    def __init__(self, widths: list[int], num_hidden: int, num_particles: int, steps: int, num_chains: int) -> None:
        latents = widths[-1]
        self.k, self.steps = num_particles, steps
        self.q, self.g = network(widths), network(widths[::-1])
        self.w = nn.Parameter(0.01 * torch.randn(latents, num_hidden))
        self.b, self.c = nn.Parameter(torch.zeros(latents)), nn.Parameter(torch.zeros(num_hidden))
        self.chains = torch.randint(2, (num_chains, latents)).float()
        parameters = [*self.q.parameters(), *self.g.parameters(), self.w, self.b, self.c]
        self.optimizer = torch.optim.AdamW(parameters, 1e-3, weight_decay=0.0, fused=True)

    def free_energy(self, z: Tensor) -> Tensor:
        """F(z) in nats."""
        return -(z @ self.b) - softplus(z @ self.w + self.c).sum(-1)

    def step(self, x: Tensor) -> float:
        """One step on x [B, D]; its loss."""
        with torch.no_grad():
            v = self.chains
            for _ in range(self.steps):
                h = torch.sigmoid(v @ self.w + self.c)
                h = (torch.rand_like(h) < h).float()
                v = torch.sigmoid(h @ self.w.T + self.b)
                v = (torch.rand_like(v) < v).float()
            self.chains = v
        logits = self.q(x)  # [B, Z]
        p = torch.sigmoid(logits.detach()).expand(self.k, -1, -1)
        z = (torch.rand_like(p) < p).float()  # [K, B, Z]
        log_q = -cross_entropy(logits.expand_as(z), z, reduction="none").sum(-1)
        out = self.g(z)
        log_x = -cross_entropy(out, x.expand_as(out), reduction="none").sum(-1)
        log_w = log_x - self.free_energy(z) - log_q  # [K, B]
        loss = -vimco(log_w, log_q).mean() - self.free_energy(self.chains).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()
