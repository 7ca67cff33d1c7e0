"""Restricted Boltzmann machines over units of any kind.

Shapes: V visible units with D statistics, H hidden ones with E, M chains, S listed states. Everything is in nats.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from unibound.energies.energy import EnergyPrior
from unibound.energies.states import Enumeration
from unibound.energies.units import Units
from unibound.errors import UsageError
from unibound.support import values

MAX_BITS = 12
"""Hidden states are listed for the transitions if there are at most 2^12."""


class Restricted(EnergyPrior):
    """Visible units v and hidden units h, joined by a matrix and within neither side, the hidden ones summed out.

        p(v) = sum_h m(v) m(h) exp(s(v)'W s(h)) / Z,   F_beta(v) = -log m_beta(v) - A_beta(beta W's(v))

    m, s and A are measure, statistics and log-partition of the two kinds of units (`unibound.energies.units`). On the
    annealing path W and the hidden bias are scaled by beta, and the visible measure goes over into that of the base
    distribution. A subclass says what W and the two sides are; moves, annealing, listings of the smaller side and exact
    transitions follow.

    Args:
        event_shape: shape [*Z] of one state.
        base: visible units of the base distribution, whose natural parameters are kept as buffers `base_...`.
        num_chains: persistent chains M.
        steps: block Gibbs steps of every chain per training step.
        num_replicas: temperatures at which the chains are kept, evenly from 0 to 1.

    Source: Welling, Rosen-Zvi and Hinton, "Exponential family harmoniums with an application to information retrieval"
    (2004), https://papers.nips.cc/paper/2672
    """

    def __init__(
        self, event_shape: Sequence[int], base: Units, *, num_chains: int, steps: int, num_replicas: int
    ) -> None:
        sizes = {"num_chains": num_chains, "steps": steps, "num_replicas": num_replicas}
        for name, value in sizes.items():
            if value < 1:
                raise UsageError(f"{type(self).__name__.lower()}: {name} must be at least 1, not {value}")
        chains = base.given().sample((num_chains,)).view(num_chains, *event_shape)
        betas = torch.linspace(0, 1, num_replicas).tolist() if num_replicas > 1 else (1.0,)
        super().__init__(chains, steps, betas)
        for name, value in base.naturals.items():
            self.register_buffer(f"base_{name}", value.clone())

    @abstractmethod
    def machine(self) -> tuple[Tensor, Units, Units]:
        """W [D, E], the visible units and the hidden ones, differentiable."""

    @property
    def base(self) -> Units:
        """The visible units of the base distribution."""
        visible = self.machine()[1]
        return attrs.evolve(visible, **{name: getattr(self, f"base_{name}") for name in visible.naturals})

    def at(self, beta: float) -> tuple[Tensor, Units, Units]:
        """`machine` on the annealing path."""
        weight, visible, hidden = self.machine()
        if beta == 1:
            return weight, visible, hidden
        return beta * weight, visible.toward(self.base, beta), hidden.toward(hidden.free(), beta)

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        weight, visible, hidden = self.at(beta)
        v = tau.flatten(-len(self.event_shape))  # [..., V]
        return -visible.log_measure(v) - hidden.log_partition(visible.onto(v, weight))

    @torch.no_grad()
    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        weight, visible, hidden = self.at(beta)
        v = tau.flatten(1)
        for _ in range(steps):
            h = hidden.given(visible.onto(v, weight)).sample()  # [M, H]
            v = visible.given(hidden.onto(h, weight.mT)).sample()  # [M, V]
        return v.view_as(tau) if steps else tau.clone()

    def log_transition(self, states: Tensor, beta: float = 1.0) -> Tensor:
        weight, visible, hidden = self.at(beta)
        listed, num_hidden = values(hidden.support), hidden.num_units
        if listed is None or num_hidden * math.log2(len(listed)) > MAX_BITS:
            who = type(self).__name__.lower()
            raise UsageError(f"{who}: transitions sum over all hidden states, at most 2^{MAX_BITS}; use fewer units")
        index = torch.arange(len(listed) ** num_hidden, device=states.device).unsqueeze(1)
        digits = index // len(listed) ** torch.arange(num_hidden, device=states.device) % len(listed)
        h, v = torch.tensor(listed).to(states)[digits], states.flatten(1)  # [G, H], [S, V]
        up = hidden.log_prob(h, visible.onto(v, weight))  # [G, S]
        down = visible.log_prob(v, hidden.onto(h, weight.mT))  # [S, G]
        return (down.exp() @ up.exp()).clamp_min(torch.finfo(up.dtype).tiny).log().mT  # [S, S]

    @torch.no_grad()
    def base_sample(self, count: int) -> Tensor:
        return self.base.given().sample((count,)).view(count, *self.event_shape)

    @torch.no_grad()
    def base_log_z(self) -> float:
        # At beta = 0 every hidden unit is free.
        hidden = self.machine()[2].free().double()
        return (self.base.double().log_partition() + hidden.log_partition()).item()

    @torch.no_grad()
    def fit_base(self, tau: Tensor) -> None:
        fitted = self.machine()[1].fitted(tau.flatten(1))
        for name, value in fitted.naturals.items():
            getattr(self, f"base_{name}").copy_(value)

    def enumeration(self) -> Enumeration | None:
        """The side with fewer states: those of the visible units with the hidden summed out, or the reverse."""
        visible, hidden = self.machine()[1:]
        summed = values(hidden.support)
        if summed is None or _log_states(visible) <= _log_states(hidden):
            return super().enumeration()

        def hidden_of(index: Tensor) -> Tensor:  # numbers of values [S, H] -> h [S, H]
            return torch.tensor(summed).to(index)[index.long()]

        def log_f(index: Tensor) -> Tensor:
            weight, visible, hidden = self.machine()
            h = hidden_of(index)
            return hidden.log_measure(h) + visible.log_partition(hidden.onto(h, weight.mT))

        def draw(index: Tensor) -> Tensor:
            weight, visible, hidden = self.machine()
            v = visible.given(hidden.onto(hidden_of(index), weight.mT)).sample()
            return v.view(-1, *self.event_shape)

        return Enumeration(hidden.num_units, log_f, draw, len(summed))

    @torch.no_grad()
    def log_reach(self, tau: Tensor, targets: Tensor) -> Tensor:
        weight, visible, hidden = self.machine()
        h = hidden.given(visible.onto(tau.flatten(1), weight)).sample()  # [S, H]
        return visible.log_prob(targets.flatten(1), hidden.onto(h, weight.mT)).mT  # [S, N]


def _log_states(units: Units) -> float:
    """log of how many states there are; infinite where they cannot be listed."""
    listed = values(units.support)
    return math.inf if listed is None else units.num_units * math.log(len(listed))
