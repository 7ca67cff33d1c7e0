"""Priors that have an energy, known up to their partition function.

Shapes: *Z one latent, M chains, S listed states. Everything is in nats.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from unibound.energies import pacing
from unibound.energies.chains import make_room
from unibound.energies.past import Past
from unibound.energies.states import Enumeration
from unibound.energies.tempering import Flow, swap
from unibound.errors import UsageError
from unibound.prior import Prior
from unibound.support import values

__all__ = ["EnergyPrior", "Enumeration"]


class _NoNegativePhase(torch.autograd.Function):
    """Zero, whose gradient is asked for where that of log Z cannot be given."""

    @staticmethod
    def forward(ctx: Any, reason: str, *parameters: Tensor) -> Tensor:
        ctx.reason = reason
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        raise UsageError(ctx.reason)


def _forget(prior: "EnergyPrior", _keys: object) -> None:
    """Chains that were loaded are whatever they were saved as: the next step moves them before they are read."""
    prior.advanced = False


class EnergyPrior(Prior):
    """p(tau) = exp(-F(tau)) / Z with Z unknown, and a path of distributions p_beta from a tractable one.

    The gradient of log Z is estimated from persistent chains (PCD), a buffer that is saved with the
    weights: `advance` moves them once per training step, and every `log_prob` of that step reads them.
    In evaluation mode, or without gradients, log_prob is plain -F; whoever asks it for a gradient of the parameters
    there, or before the chains were ever moved, is refused.

    A subclass gives the free energy, a move, and the base distribution at beta = 0; training by any estimator, AIS
    and its reverse follow from these. The move is its own (`gibbs`), or a `Transition` set as `transition`.

    With several `betas` the chains are tempered: a replica of them moves at each, and neighbors swap after every
    step. Only the replica at 1 is read by the gradient. Replicas at earlier weights instead: see `Past`.

    An energy may keep latents of its own, such as further layers of a Boltzmann machine. A state is then flat, the
    latent of the model first and these after it, and `inner` says how they are drawn given the first.

    Args:
        chains: initial states of the persistent chains [M, *S].
        steps: moves per training step.
        betas: temperatures of the replicas, rising and ending at 1.
        event_shape: shape [*Z] of the latent that the model below sees, which begins a state [S]; all of it by default.

    Source: Tieleman, "Training restricted Boltzmann machines using approximations to the likelihood
    gradient" (2008), https://www.cs.toronto.edu/~tijmen/pcd/pcd.pdf; for replicas, Desjardins, Courville, Bengio,
    Vincent and Delalleau, "Parallel tempering for training of restricted Boltzmann machines" (2010),
    https://proceedings.mlr.press/v9/desjardins10a.html
    """

    chains: Tensor
    replicas: Tensor
    """Chains at all temperatures but the last [R - 1, M, *Z]."""
    pace: Tensor | float
    """By what a step length is multiplied, driven by `advance` to where as many steps are accepted as should be."""
    target: ClassVar[float | None] = None
    """For an energy whose own moves have a step length, the share of proposals that should be accepted."""
    mixing_steps: ClassVar[int] = 100
    """Moves between the persistent chains and the draws that `sample` returns."""

    def __init__(
        self,
        chains: Tensor,
        steps: int,
        betas: Sequence[float] = (1.0,),
        event_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__(tuple(chains.shape[1:] if event_shape is None else event_shape))
        if betas[-1] != 1 or any(not 0 <= low < high for low, high in pairwise(betas)):
            raise UsageError(f"betas of replicas must rise from at least 0 and end at 1, but are {list(betas)}")
        self.register_buffer("chains", chains)
        self.register_buffer("replicas", chains.expand(len(betas) - 1, *chains.shape).clone())
        self.steps, self.betas, self.usual = steps, tuple(betas), (len(chains), steps)
        self.flow = Flow(len(betas), len(chains)) if len(betas) > 1 else None
        self.past: Past | None = None
        self.advanced = False
        self._transition: Callable[[EnergyPrior, Tensor, float], Tensor] | None = None
        self.pace = 1.0
        self._keep_pace()
        self.register_load_state_dict_post_hook(_forget)

    @property
    def transition(self) -> "Callable[[EnergyPrior, Tensor, float], Tensor] | None":
        """What moves states instead of `gibbs`; see `Transition`."""
        return self._transition

    @transition.setter
    def transition(self, chosen: "Callable[[EnergyPrior, Tensor, float], Tensor] | None") -> None:
        self._transition = chosen
        self._keep_pace()

    def _keep_pace(self) -> None:
        if self._target is not None and "pace" not in self._buffers:
            del self.pace
            self.register_buffer("pace", torch.ones((), dtype=self.chains.dtype, device=self.chains.device))

    @property
    def _target(self) -> float | None:
        return getattr(self if self.transition is None else self.transition, "target", None)

    @property
    def log_z(self) -> None:
        return None

    @property
    def state_shape(self) -> torch.Size:
        return self.chains.shape[1:]

    def visible(self, state: Tensor) -> Tensor:
        if self.state_shape == self.event_shape:
            return state
        return state[..., : self.event_shape.numel()].unflatten(-1, self.event_shape)

    @abstractmethod
    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        """Map tau [..., *Z] to F_beta(tau) [...] nats; F_1 is the model, F_0 the base distribution."""

    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        """Move tau [M, *Z] by moves of its own that leave p_beta invariant; a new tensor, detached.

        Raises:
            UsageError: for an energy that has none, which is the default.
        """
        del tau, steps, beta
        raise UsageError(f"{type(self).__name__} has no move of its own; choose a transition for it")

    @torch.no_grad()
    def move(self, tau: Tensor, steps: int = 1, beta: float = 1.0) -> Tensor:
        """Move tau [M, *Z] by whatever moves this energy; a new tensor, detached."""
        if self.transition is None:
            return self.gibbs(tau, steps, beta)
        for _ in range(steps):
            tau = self.transition(self, tau, beta)
        return tau

    def contrast(self, tau: Tensor, steps: int, layer: int = 0) -> tuple[Tensor, Tensor]:
        """F(tau) of states tau [M, *Z], and F of where `steps` moves take them, held still: both [M] nats.

        An energy of layers may give those of one `layer` with the one below, from 1, as if alone."""
        if layer:
            raise UsageError(f"{type(self).__name__} has no layers to be trained one by one; leave layer out")
        end = self.move(tau, steps)
        free = self.free_energy(torch.cat([tau, end]))
        return free[: len(tau)], free[len(tau) :]

    @property
    def moves_exactly(self) -> bool:
        """Whether `move` leaves p_beta invariant, and not only nearly."""
        return getattr(self.transition, "exact", True)

    def log_transition(self, states: Tensor, beta: float = 1.0) -> Tensor:
        """log-probability of one Gibbs step at beta from each state to each: [S, *Z] to [S, S] nats, differentiable.

        Raises:
            UsageError: for a prior that is too large to be listed, or that cannot tell, which is the default.
        """
        del states, beta
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

    def enumeration(self) -> Enumeration | None:
        """List of states whose weights sum to Z: by default every tau. None where there are no finitely many."""
        listed = values(self.support)
        if listed is None:
            return None

        def shaped(index: Tensor) -> Tensor:  # numbers of values [N, Z] -> tau [N, *Z]
            return torch.tensor(listed).to(self.chains)[index.long()].view(-1, *self.state_shape)

        def log_f(index: Tensor) -> Tensor:
            return -self.free_energy(shaped(index))

        return Enumeration(self.state_shape.numel(), log_f, shaped, len(listed))

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
        start = tau
        with torch.no_grad():
            for a, b in pairwise(schedule):
                if not rising:
                    tau = self.move(tau, 1, a)
                log_w += self.free_energy(tau, a).double() - self.free_energy(tau, b).double()
                if rising:
                    tau = self.move(tau, 1, b)
        if self._target is not None:
            pacing.require_moved(self, start, tau, len(schedule) - 1)
        return tau, log_w

    def negative_phase(self) -> Tensor:
        """A scalar whose gradient estimates that of log Z: the mean of -F over the persistent chains."""
        return -self.free_energy(self.chains).mean()

    def log_prob(self, tau: Tensor) -> Tensor:
        log_p = -self.free_energy(tau)  # [...]
        if not torch.is_grad_enabled():
            return log_p
        if (missing := self._no_negative_phase) is None:
            log_z = self.negative_phase()
            return log_p - (log_z - log_z.detach())
        learned = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return log_p + _NoNegativePhase.apply(missing, *learned) if learned else log_p

    @property
    def _no_negative_phase(self) -> str | None:
        """Why the gradient of log Z cannot be given as things stand; None where it can."""
        who = type(self).__name__.lower()
        if not self.training:
            return f"{who} gives no gradient of log p in evaluation mode; call train(), or free_energy for -F alone"
        if not self.advanced:
            return f"{who} has chains that were never moved; call joint.advance() before each training step"
        return None

    @torch.no_grad()
    def advance(self) -> None:
        self.advanced = True
        for rung, (replica, beta) in enumerate(zip((*self.replicas, self.chains), self.betas, strict=True)):
            with nullcontext() if self.past is None else self.past.at(self, rung):
                if self._target is None:
                    replica.copy_(self.move(replica, self.steps, beta))
                else:
                    replica.copy_(pacing.adapted(self, replica, self.steps, beta, self._target))
        if self.flow is None:
            return
        states = torch.cat([self.replicas, self.chains.unsqueeze(0)])
        if self.past is None:
            states, swapped = swap(self, states, self.betas)
            self.flow.follow(swapped)
        else:
            states = self.past.swapped(self, self.flow, states)
        self.replicas.copy_(states[:-1])
        self.chains.copy_(states[-1])

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any, **named: Any) -> None:
        make_room(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest, **named)
        self.advanced = self.advanced or f"{prefix}chains" in state_dict  # they were moved before they were saved

    def persistent(self, count: int) -> Tensor:
        return self.chains[torch.arange(count, device=self.chains.device) % len(self.chains)]

    def sample(self, count: int) -> Tensor:
        return self.move(self.persistent(count), self.mixing_steps)
