"""Any network as an energy over reals, kept together by a quadratic."""

import math
from types import MappingProxyType

import torch
from torch import Tensor, nn

from unibound import EnergyPrior, Inference, UsageError, hookimpl
from unibound.energies.transition import accept, langevin
from unibound.support import real


class DeepEnergy(EnergyPrior):
    """p(tau) = exp(-F(tau)) / Z with a network f, and a confining term without which Z would be infinite.

        F(tau) = f(tau) + sum_i (tau_i - m_i)^2 / 2 (w s_i)^2

    m and s are mean and standard deviation of the codes that it first sees, w how much wider than those it may go. f
    grows no faster than a straight line, so that the quadratic wins in the end. The path to the base, normals fitted to
    codes, is straight: F_beta = beta F + (1 - beta) F_0. It moves by Langevin steps with a Metropolis test; `hmc` goes
    farther per step.

    Args:
        event_shape: shape [*Z] of one latent.
        hidden: widths of the layers of f.
        width: w.
        step: length of a Langevin step, before it is adapted.
        num_chains: persistent chains M.
        steps: moves of every chain per training step.
        num_replicas: temperatures at which the chains are kept, evenly from 0 to 1; neighbors swap after each step.

    Source: Ngiam, Chen, Koh and Ng, "Learning deep energy models" (2011),
    https://icml.cc/2011/papers/557_icmlpaper.pdf; Nijkamp, Hill, Han, Zhu and Wu, "On the anatomy of MCMC-based maximum
    likelihood learning of energy-based models" (2020), https://arxiv.org/abs/1903.12370
    """

    support = real
    small = MappingProxyType({"hidden": (8,)})
    target = 0.574
    center: Tensor
    scale: Tensor
    base_mean: Tensor
    base_scale: Tensor
    met: Tensor

    def __init__(
        self,
        event_shape: tuple[int, ...],
        *,
        hidden: tuple[int, ...] = (64, 64),
        width: float = 2.0,
        step: float = 0.1,
        num_chains: int = 100,
        steps: int = 10,
        num_replicas: int = 1,
    ) -> None:
        sizes = {"hidden": hidden, "num_chains": (num_chains,), "steps": (steps,), "num_replicas": (num_replicas,)}
        for name, values in sizes.items():
            if min(values, default=1) < 1:
                raise UsageError(f"deep_energy: {name} must be at least 1, not {min(values)}")
        for name, value in {"width": width, "step": step}.items():
            if not value > 0:
                raise UsageError(f"deep_energy: {name} must be positive, not {value}")
        betas = torch.linspace(0, 1, num_replicas).tolist() if num_replicas > 1 else (1.0,)
        super().__init__(torch.randn(num_chains, *event_shape), steps, betas)
        self.width, self.step = width, step
        layers: list[nn.Module] = []
        fan_in = math.prod(event_shape)
        for fan_out in hidden:
            layers += [nn.Linear(fan_in, fan_out), nn.Softplus()]
            fan_in = fan_out
        self.network = nn.Sequential(*layers, nn.Linear(fan_in, 1))
        for name in ("center", "base_mean"):
            self.register_buffer(name, torch.zeros(event_shape))
        for name in ("scale", "base_scale"):
            self.register_buffer(name, torch.ones(event_shape))
        self.register_buffer("met", torch.zeros((), dtype=torch.bool))

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        dims = len(self.event_shape)
        free = beta * self.network(tau.flatten(-dims)).squeeze(-1)
        own = beta * ((tau - self.center) / (self.width * self.scale)).square()
        base = (1 - beta) * ((tau - self.base_mean) / self.base_scale).square()
        return free + (own + base).flatten(-dims).sum(-1) / 2

    @torch.no_grad()
    def bind(self, q: Inference, x: Tensor) -> None:
        tau = q(x).sample()
        if not self.met and tau.shape[1:] == self.event_shape and len(tau) > 1:
            self.center.copy_(tau.mean(0))
            self.scale.copy_(tau.std(0).clamp(min=1e-3))
            self.fit_base(tau)
            self.chains.copy_(self.base_sample(len(self.chains)))
            self.replicas.copy_(self.chains)
            self.met.fill_(True)

    @torch.no_grad()
    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        for _ in range(steps):
            size = self.step * float(self.pace)
            tau = accept(tau, *langevin(self, tau, beta, size, torch.randn_like(tau)))
        return tau.clone()

    def base_sample(self, count: int) -> Tensor:
        noise = torch.randn(count, *self.event_shape, dtype=self.base_mean.dtype, device=self.base_mean.device)
        return self.base_mean + self.base_scale * noise

    def base_log_z(self) -> float:
        return (self.base_scale.double().log() + math.log(2 * math.pi) / 2).sum().item()

    def fit_base(self, tau: Tensor) -> None:
        self.base_mean.copy_(tau.mean(0))
        self.base_scale.copy_(torch.maximum(tau.std(0, correction=0), self.scale / 4))  # never a needle


@hookimpl
def register_priors(register):
    register("deep_energy", DeepEnergy)
