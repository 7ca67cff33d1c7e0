"""Priors that have an energy, known up to their partition function.

Shapes: *Z one latent, M chains, S listed states. Everything is in nats.
"""

from abc import abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from unibound.errors import UsageError
from unibound.prior import Prior


@attrs.frozen(eq=False)
class Enumeration:
    """States over bits whose weights sum to a partition function: Z = sum over bits of exp(log_f(bits))."""

    num_bits: int
    log_f: Callable[[Tensor], Tensor]  # bits [N, num_bits] -> [N] nats
    draw: Callable[[Tensor], Tensor] | None = None  # bits [N, num_bits] -> tau [N, *Z], drawn given the bits


class EnergyPrior(Prior):
    """p(tau) = exp(-F(tau)) / Z with Z unknown, and a path of distributions p_beta from a tractable one.

    The gradient of log Z is estimated from persistent chains (PCD), a buffer that is saved with the
    weights: `advance` moves them once per training step, and every `log_prob` of that step reads them.
    In evaluation mode, or without gradients, log_prob is plain -F.

    A subclass gives the free energy, a transition, and the base distribution at beta = 0; training by
    any estimator, AIS and its reverse follow from these.

    Args:
        chains: initial states of the persistent chains [M, *Z].
        steps: Gibbs steps per training step.

    Source: Tieleman, "Training restricted Boltzmann machines using approximations to the likelihood
    gradient" (2008), https://www.cs.toronto.edu/~tijmen/pcd/pcd.pdf
    """

    chains: Tensor
    mixing_steps: ClassVar[int] = 100
    """Gibbs steps between the persistent chains and the draws that `sample` returns."""

    def __init__(self, chains: Tensor, steps: int) -> None:
        super().__init__(tuple(chains.shape[1:]))
        self.register_buffer("chains", chains)
        self.steps = steps

    @property
    def log_z(self) -> None:
        return None

    @abstractmethod
    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        """Map tau [..., *Z] to F_beta(tau) [...] nats; F_1 is the model, F_0 the base distribution."""

    @abstractmethod
    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        """Move tau [M, *Z] by transitions that leave p_beta invariant; a new tensor, detached."""

    def log_transition(self, states: Tensor) -> Tensor:
        """log-probability of one Gibbs step from each state to each: [S, *Z] to [S, S] nats, differentiable.

        Raises:
            UsageError: for a prior that is too large to be listed, or that cannot tell, which is the default.
        """
        del states
        raise UsageError(f"the transitions of {type(self).__name__} cannot be listed; use a small rbm")

    @abstractmethod
    def base_sample(self, count: int) -> Tensor:
        """Draw [count, *Z] exactly from the base distribution p_0."""

    @abstractmethod
    def base_log_z(self) -> float:
        """Exact log partition function of the base distribution, in nats."""

    @abstractmethod
    def fit_base(self, tau: Tensor) -> None:
        """Fit the base distribution to draws tau [N, *Z] that resemble the model's."""

    def enumeration(self) -> Enumeration:
        """List of states whose weights sum to Z. By default every tau, for a prior over bits."""

        def shaped(bits: Tensor) -> Tensor:
            return bits.reshape(-1, *self.event_shape)

        return Enumeration(self.event_shape.numel(), lambda bits: -self.free_energy(shaped(bits)), shaped)

    def log_reach(self, tau: Tensor, targets: Tensor) -> Tensor | None:
        """log-density of a Gibbs step from each state tau [S, *Z] to each target [N, *Z]: [S, N] nats.

        Whatever the step draws on its way is drawn, so the density is that of the rest of the step. None for a
        prior that cannot tell, which is the default; then there is no conservative sampling-based likelihood.
        """
        del tau, targets
        return None

    def anneal(self, tau: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """Carry chains through the temperatures and accumulate the annealed importance weight.

        Rising temperatures weigh, then move: for each step a -> b, log_w += F_a(tau) - F_b(tau), then
        tau ~ T_b. Falling ones move, then weigh: tau ~ T_a, then log_w += F_a(tau) - F_b(tau). So the
        falling walk is the exact reverse of the rising one.

        Args:
            tau: states [M, *Z]; not modified.
            betas: temperatures [T + 1], float64, all rising or all falling.
        Returns:
            The states at the end [M, *Z] and log_w [M] in nats, float64.
        Source: Neal, "Annealed importance sampling" (2001), https://arxiv.org/abs/physics/9803008
        """
        log_w = torch.zeros(len(tau), dtype=torch.float64, device=tau.device)
        schedule = betas.tolist()
        rising = schedule[-1] >= schedule[0]
        with torch.no_grad():
            for a, b in pairwise(schedule):
                if not rising:
                    tau = self.gibbs(tau, 1, a)
                log_w += self.free_energy(tau, a).double() - self.free_energy(tau, b).double()
                if rising:
                    tau = self.gibbs(tau, 1, b)
        return tau, log_w

    def negative_phase(self) -> Tensor:
        """A scalar whose gradient estimates that of log Z: the mean of -F over the persistent chains."""
        return -self.free_energy(self.chains).mean()

    def log_prob(self, tau: Tensor) -> Tensor:
        log_p = -self.free_energy(tau)  # [...]
        if self.training and torch.is_grad_enabled():
            log_z = self.negative_phase()
            log_p = log_p - (log_z - log_z.detach())
        return log_p

    def advance(self) -> None:
        self.chains.copy_(self.gibbs(self.chains, self.steps))

    def persistent(self, count: int) -> Tensor:
        return self.chains[torch.arange(count, device=self.chains.device) % len(self.chains)]

    def sample(self, count: int) -> Tensor:
        return self.gibbs(self.persistent(count), self.mixing_steps)
