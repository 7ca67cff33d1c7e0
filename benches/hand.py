"""Training steps written out by hand in plain PyTorch: the reference rows of the benches.

The mathematics is that of the estimators; nothing is abstracted, and everything that makes a plain loop
fast is used: a fused Adam, and `rand < p` for bits.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import softplus

from unibound.testing.by_hand import network, vimco


class Loop:
    """What the steps below share: Adam over all parameters, and nothing else."""

    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained."""
        found: list[nn.Parameter] = []
        for value in vars(self).values():
            if isinstance(value, nn.Module):
                found += value.parameters()
            elif isinstance(value, nn.Parameter):
                found.append(value)
        return found

    def prepare(self) -> None:
        """Make the optimizer, once all parameters are there."""
        self.optimizer = torch.optim.AdamW(self.parameters(), 1e-3, weight_decay=0.0, fused=True)

    def loss(self, x: Tensor) -> Tensor:
        """A scalar to be minimized."""
        raise NotImplementedError

    def step(self, x: Tensor) -> float:
        loss = self.loss(x)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def bits(logits: Tensor) -> Tensor:
    """Draw bits of given logits."""
    p = torch.sigmoid(logits)
    return (torch.rand_like(p) < p).to(p.dtype)


def log_bits(logits: Tensor, values: Tensor) -> Tensor:
    """log-probability of bits, summed over the last dimension."""
    logits, values = torch.broadcast_tensors(logits, values)
    return -cross_entropy(logits, values, reduction="none").sum(-1)


class RBM(Loop):
    """An RBM with persistent chains."""

    def __init__(self, num_visible: int, num_hidden: int, steps: int, num_chains: int) -> None:
        self.steps = steps
        self.w = nn.Parameter(0.01 * torch.randn(num_visible, num_hidden))
        self.b, self.c = nn.Parameter(torch.zeros(num_visible)), nn.Parameter(torch.zeros(num_hidden))
        self.chains = torch.randint(2, (num_chains, num_visible)).float()

    def free_energy(self, z: Tensor) -> Tensor:
        return -(z @ self.b) - softplus(z @ self.w + self.c).sum(-1)

    @torch.no_grad()
    def gibbs(self, v: Tensor, steps: int) -> Tensor:
        for _ in range(steps):
            v = bits(bits(v @ self.w + self.c) @ self.w.T + self.b)
        return v


class CD(RBM):
    """CD-k on the data themselves."""

    def loss(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return (self.free_energy(x) - self.free_energy(self.gibbs(x, self.steps))).mean()


class Deep(RBM):
    """Networks of q and p(x | z) beside the RBM over z; one method per estimator."""

    mixing_steps = 100

    def __init__(self, widths: list[int], num_hidden: int, num_particles: int, steps: int, num_chains: int) -> None:
        super().__init__(widths[-1], num_hidden, steps, num_chains)
        self.k = num_particles
        self.q, self.g = network(widths), network(widths[::-1])

    def weigh(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Draw K latents; log p* without its log Z, and log q [K, B]."""
        self.chains = self.gibbs(self.chains, self.steps)
        logits = self.q(x)
        z = bits(logits.detach().expand(self.k, -1, -1))
        return log_bits(self.g(z), x) - self.free_energy(z), log_bits(logits, z)

    def negative(self) -> Tensor:
        """What has the gradient of log Z."""
        return -self.free_energy(self.chains).mean()

    def sleep(self, z: Tensor) -> Tensor:
        """log q of z for x dreamed from it."""
        with torch.no_grad():
            x = bits(self.g(z))
        return log_bits(self.q(x), z).mean()

    def dreams(self, count: int) -> Tensor:
        """Chains as they stand, as many as wanted."""
        return self.chains[torch.arange(count) % len(self.chains)]


class Nvil(Deep):
    """Score function with a learned baseline."""

    def __init__(self, widths: list[int], *sizes: int) -> None:
        super().__init__(widths, *sizes)
        self.baseline = nn.Sequential(nn.Linear(widths[0], 100), nn.Tanh(), nn.Linear(100, 1))
        self.mean, self.variance = torch.zeros(()), torch.ones(())

    def loss(self, x: Tensor) -> Tensor:
        log_p, log_q = self.weigh(x)
        log_w = (log_p - log_q).detach()
        surprise = (log_w - self.mean) / self.variance.sqrt().clamp(min=1.0) - self.baseline(x).squeeze(-1)
        deviation = log_w - self.mean
        self.mean = self.mean + 0.1 * deviation.mean()
        self.variance = self.variance + 0.1 * (deviation.square().mean() - self.variance)
        return (surprise.square() / 2 - log_p - surprise.detach() * log_q).mean() + self.negative()


class Rws(Deep):
    """Wake-p, wake-q and sleep-q, with dreams from chains run on."""

    def loss(self, x: Tensor) -> Tensor:
        log_p, log_q = self.weigh(x)
        w = (log_p - log_q).detach().softmax(0)
        wake = (w * (log_p + 0.5 * log_q)).sum(0).mean()
        return -wake - 0.5 * self.sleep(self.prior_draws(len(x))) + self.negative()

    def prior_draws(self, count: int) -> Tensor:
        return self.gibbs(self.dreams(count), self.mixing_steps)


class ContrastiveRws(Rws):
    """The same with the chains as they stand."""

    def prior_draws(self, count: int) -> Tensor:
        return self.dreams(count)


class WakeSleep(Deep):
    """Wake-p and sleep-q."""

    def loss(self, x: Tensor) -> Tensor:
        log_p, _ = self.weigh(x)
        return -log_p.mean() - self.sleep(self.gibbs(self.dreams(len(x)), self.mixing_steps)) + self.negative()


class Autoencoder(Deep):
    """Soft bits, a tenth of them masked."""

    def loss(self, x: Tensor) -> Tensor:
        logits = self.q(x)
        z = (logits + torch.rand_like(logits)).clamp(0, 1) * (torch.rand_like(logits) >= 0.1)
        return -log_bits(self.g(z), x).mean()


class Iwae(Loop):
    """A normal posterior and a standard normal prior; the K-particle bound."""

    def __init__(self, widths: list[int], num_particles: int) -> None:
        self.k, self.latents = num_particles, widths[-1]
        self.q, self.g = network([*widths[:-1], 2 * widths[-1]]), network(widths[::-1])

    def log_weights(self, x: Tensor) -> Tensor:
        mean, raw = self.q(x).chunk(2, -1)
        scale = softplus(raw) + 1e-3
        noise = torch.randn(self.k, *mean.shape)
        z = mean + scale * noise
        log_q = -(noise.square() / 2 + scale.log()).sum(-1)
        return log_bits(self.g(z), x) - (z.square() / 2).sum(-1) - log_q

    def loss(self, x: Tensor) -> Tensor:
        return -(self.log_weights(x).logsumexp(0) - math.log(self.k)).mean()


class Sgvb(Iwae):
    """The same with one particle, or the mean over several: the ELBO."""

    def loss(self, x: Tensor) -> Tensor:
        return -self.log_weights(x).mean()


class Dae(Loop):
    """Three tenths of the pixels replaced by fair coins, and a network that undoes it."""

    def __init__(self, widths: list[int]) -> None:
        self.g = network(widths)

    def loss(self, x: Tensor) -> Tensor:
        z = torch.where(torch.rand_like(x) < 0.3, (torch.rand_like(x) < 0.5).to(x.dtype), x)
        return -log_bits(self.g(z), x).mean()


class Sbn(Loop):
    """A sigmoid belief net by VIMCO; independent bits on top."""

    def __init__(self, sizes: list[int], num_particles: int) -> None:
        self.k = num_particles
        self.up = nn.ModuleList(nn.Linear(below, above) for below, above in pairwise(sizes))
        self.down = nn.ModuleList(nn.Linear(above, below) for below, above in pairwise(sizes))
        self.logits = nn.Parameter(torch.zeros(sizes[-1]))

    def top(self, h: Tensor) -> Tensor:
        return log_bits(self.logits, h)

    def negative(self) -> Tensor | float:
        return 0.0

    def loss(self, x: Tensor) -> Tensor:
        logits = self.up[0](x)
        h = bits(logits.detach().expand(self.k, -1, -1))
        log_q, log_p = log_bits(logits, h), log_bits(self.down[0](h), x)
        for up, down in zip(list(self.up)[1:], list(self.down)[1:], strict=True):
            logits = up(h)
            above = bits(logits.detach())
            log_q, log_p = log_q + log_bits(logits, above), log_p + log_bits(down(above), h)
            h = above
        log_w = log_p + self.top(h) - log_q  # [K, B]
        return self.negative() - vimco(log_w, log_q).mean()


class Dbn(Sbn):
    """The same with a machine on top, and persistent chains."""

    def __init__(self, sizes: list[int], num_particles: int, *machine: int) -> None:
        super().__init__(sizes, num_particles)
        self.rbm = RBM(sizes[-1], *machine)
        self.w, self.b, self.c = self.rbm.w, self.rbm.b, self.rbm.c
        del self.logits

    def top(self, h: Tensor) -> Tensor:
        return -self.rbm.free_energy(h)

    def negative(self) -> Tensor:
        self.rbm.chains = self.rbm.gibbs(self.rbm.chains, self.rbm.steps)
        return -self.rbm.free_energy(self.rbm.chains).mean()
