"""Training steps written out by hand in plain PyTorch: the reference rows of the benches.

The mathematics is that of the estimators; nothing is abstracted, and everything that makes a plain loop
fast is used: a fused Adam, and `rand < p` for bits.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import softplus


def network(widths: list[int]) -> nn.Sequential:
    """Linear layers with ELU between them."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(fan_in, fan_out), nn.ELU()]
    return nn.Sequential(*layers[:-1])


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
        return -(z @ self.b) - softplus(z @ self.w + self.c).sum(-1)

    def step(self, x: Tensor) -> float:
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
        bound = log_w.logsumexp(0) - math.log(self.k)
        with torch.no_grad():
            others = (log_w.sum(0) - log_w) / (self.k - 1)
            replaced = log_w.expand(self.k, -1, -1).clone()  # [K, K, B]
            replaced.diagonal().copy_(others.T)
            signal = bound - (replaced.logsumexp(1) - math.log(self.k))
        loss = -((signal * log_q).sum(0) + bound).mean() - self.free_energy(self.chains).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()
