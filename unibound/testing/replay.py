"""Hand an estimator chosen draws, all of them, and so know what it expects exactly.

A row of the batch is one datum with one outcome of every draw that is made for it. The estimator is run
as it stands, by its own `__call__`: the sum of probability times bound over the rows is the exact
E[bound], and the gradient of the sum of probability times surrogate the exact expected gradient.
"""

import copy
import math
from collections.abc import Iterator

import attrs
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from unibound.draws import Chain, Drawn, log_pieces
from unibound.energies.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.estimator import Estimate, Estimator
from unibound.joint import JointBound
from unibound.prior import Prior
from unibound.sequences.recurrent import RecurrentInference
from unibound.testing.listing import gradients, parameter_groups, scatter
from unibound.testing.worlds import Nodes, World

MAX_ROWS = 1 << 20
NOTHING = 1e-14
"""Probability of a state that no sum notices."""


class Replay:
    """A world's joint whose draws are read off the number of the row, digit by digit, instead of drawn.

    Row r is datum r mod N, and the rest of r says which outcome each draw has, in the order they are made.
    The modules are those of the world, but what q, the generator and the prior sample is listed.
    """

    def __init__(self, world: World, rows: Tensor) -> None:
        self.world = world
        self.datum = rows % len(world.xs)  # [B]
        self.log_prob = torch.zeros(len(rows), dtype=world.xs.dtype)  # [B]; of the row's draws, given its datum
        self.num_rows = len(world.xs)  # that list every outcome of the draws made so far
        self._rest = rows // len(world.xs)
        self._drawn: list[tuple[Tensor, Distribution, Tensor]] = []
        q, p = copy.copy(world.joint.q), copy.copy(world.p)
        q.forward = lambda x: self._listed(world.joint.q(x), world.nodes, x)
        if isinstance(q, RecurrentInference):
            step = q.step  # of the copy, which follows the same recurrence
            q.step = lambda state, x, memory, t: self._listed(step(state, x, memory, t), world.nodes)
        p.dream = self._dream
        self.joint = JointBound(q, p)
        self.joint.choose = self._choose

    def log_weights(self) -> Tensor | None:
        """log p*(x, tau) - log q(tau | x) of all that was drawn from q, [K, B] nats; None if nothing was."""
        found = [self.world.p.log_joint(x, tau) - made.log_prob(tau) for x, made, tau in self._drawn]
        return torch.cat(found) if found else None

    def _listed(self, made: Distribution, nodes: Nodes, x: Tensor | None = None) -> Distribution:
        """The distribution, with outcomes of the rows for draws."""

        def rsample(sample_shape: _size = ()) -> Tensor:
            batch, count = made.batch_shape, math.prod(sample_shape)
            self._demand_rows(batch[-1] if batch else 0)
            values, log_prob = nodes(made)  # [Q, ..., B, *E], [Q, ..., B]
            pick = self._digits(len(values), count * math.prod(batch[:-1])).view(count, *batch)
            self.log_prob = self.log_prob + log_prob.detach().gather(0, pick).flatten(0, -2).sum(0)
            events = pick.view(*pick.shape, *[1] * len(made.event_shape)).expand(*pick.shape, *made.event_shape)
            drawn = values.gather(0, events)  # [count, ..., B, *E]
            if x is not None:
                self._drawn.append((x, made, drawn))
            return drawn.view(*sample_shape, *batch, *made.event_shape)

        def refuse(sample_shape: _size = ()) -> Tensor:
            raise UsageError(f"asked for reparameterized samples of {type(made).__name__}, which has none")

        def draw(count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
            drawn = made.rsample((count,)) if reparameterized else made.sample((count,))
            return drawn, made.log_prob(drawn)

        def draw_pieces(count: int, *, reparameterized: bool) -> tuple[Tensor, list[Tensor]]:
            drawn, _ = draw(count, reparameterized=reparameterized)
            return drawn, list(log_pieces(made, drawn))

        made.sample = lambda sample_shape=(): rsample(sample_shape).detach()
        made.rsample = rsample if made.has_rsample else refuse
        if isinstance(made, Drawn):
            made.draw = draw
        if isinstance(made, Chain):
            made.draw_pieces = draw_pieces
        return made

    def _dream(self, count: int, *, persistent: bool = False) -> tuple[Tensor, Tensor]:
        self._demand_rows(count)
        prior = self.world.p.unnormalized
        if not (persistent and isinstance(prior, EnergyPrior)):
            x, tau, log_p = self.world.dreams()
            pick = self._digits(len(log_p), 1)[0]  # [B]
            self.log_prob = self.log_prob + log_p[pick]
            return x[pick], tau[pick]
        x, tau, log_p = self.world.dreams(prior.chains)
        chain = self._digits(len(log_p), 1)[0]
        pick = self._digits(log_p.shape[1], 1)[0]
        self.log_prob = self.log_prob - math.log(len(log_p)) + log_p[chain, pick]
        return x[chain, pick], tau[chain, pick]

    def _choose(self, log_w: Tensor, count: int = 1) -> Tensor:
        """Every particle in turn [count, B], as likely as its weight of log_w [K, B]."""
        self._demand_rows(log_w.shape[1])
        chosen = self._digits(len(log_w), count)
        self.log_prob = self.log_prob + log_w.log_softmax(0).gather(0, chosen).sum(0)
        return chosen

    def _digits(self, base: int, count: int) -> Tensor:
        """The next digits of every row: [count, B]."""
        self.num_rows *= base**count
        if self.num_rows > MAX_ROWS:
            raise UsageError(
                f"its draws have {self.num_rows} outcomes, too many to list; examine it with fewer particles"
            )
        digits = torch.stack([self._rest // base**place % base for place in range(count)])
        self._rest = self._rest // base**count
        return digits

    def _demand_rows(self, count: int) -> None:
        if count != len(self.datum):
            raise UsageError(
                f"draws for {count} data cannot be listed in a batch of {len(self.datum)}; draw one for each datum"
            )


@attrs.frozen(eq=False)
class Rehearsal:
    """What an estimator said of every row.

    Args:
        estimate: of the whole batch of rows.
        replay: the joint it was handed, and what was drawn.
        datum: number of each row's datum [B].
        probability: of each row's draws, given its datum [B], detached.
    """

    estimate: Estimate
    replay: Replay
    datum: Tensor
    probability: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Exact expectation over the draws for each datum: [B] to [N]."""
        return torch.zeros_like(self.replay.world.log_data).index_add(0, self.datum, self.probability * values)

    def groups(self) -> dict[str, list[torch.nn.Parameter]]:
        """Parameters by group, the estimator's auxiliary among them."""
        return parameter_groups(self.replay.joint.parts())


def rehearse(world: World, estimator: Estimator, rows: Tensor | None = None) -> Rehearsal:
    """Run an estimator on rows [B], by default on all there are.

    Raises:
        UsageError: if its draws are too many to be listed, or not the same number for each datum.
    """
    if rows is None:
        rows = torch.arange(count_rows(world, estimator))
    replay = Replay(world, rows)
    replay.joint.auxiliary = estimator.auxiliary(world.joint, world.xs)
    if replay.joint.auxiliary is not None:
        scatter(replay.joint.auxiliary, seed=3)
    estimate = estimator(replay.joint, world.xs[replay.datum])
    return Rehearsal(estimate, replay, replay.datum, replay.log_prob.exp())


def count_rows(world: World, estimator: Estimator) -> int:
    """How many rows list every datum with every outcome of the estimator's draws."""
    return rehearse(world, estimator, torch.arange(len(world.xs))).replay.num_rows


def expected_bound(world: World, estimator: Estimator) -> Tensor:
    """Exact E[bound] of every datum [N], nats, of an estimator that claims a bound."""
    rehearsal = rehearse(world, estimator)
    assert rehearsal.estimate.bound is not None
    return rehearsal.mean(rehearsal.estimate.bound)


def expected_gradient(world: World, estimator: Estimator) -> dict[str, Tensor]:
    """Exact expectation, over data, draws and chains, of the direction of ascent, by parameter group."""
    total: dict[str, Tensor] = {}
    for weight in exact_chains(world.p.unnormalized, *world.states()):
        rehearsal = rehearse(world, estimator)
        value = -(world.log_data.exp() * rehearsal.mean(rehearsal.estimate.surrogate)).sum()
        for name, gradient in gradients(weight * value, rehearsal.groups()).items():
            total[name] = total.get(name, 0) + gradient
    return total


def exact_chains(prior: Prior | None, states: Tensor, log_measure: Tensor) -> Iterator[float]:
    """Set the prior's chains to one state after another, and yield the probability of each.

    A surrogate is linear in the mean over the chains, so this gives what stationary chains would. A prior
    without chains is yielded once, as it is.
    """
    if not isinstance(prior, EnergyPrior):
        yield 1.0
        return
    before = prior.chains
    probability = (log_measure - prior.free_energy(states).detach()).softmax(0)
    try:
        for state, weight in zip(states, probability.tolist(), strict=True):
            if weight > NOTHING:
                prior.chains = state.unsqueeze(0)
                yield weight
    finally:
        prior.chains = before


def variance(world: World, estimator: Estimator, group: str) -> float:
    """Exact variance, over the draws for one datum, of a group's gradient; averaged over data."""
    rehearsal = rehearse(world, estimator)
    # The gradient of a weighted sum of the rows is linear in the weights, so its derivative in them is that of every
    # row: one pass per parameter, however many rows there are.
    weights = torch.ones_like(rehearsal.probability, requires_grad=True)  # [B]
    value = (weights * rehearsal.estimate.surrogate).sum()
    total = gradients(value, {group: rehearsal.groups()[group]}, create_graph=True)[group] + 0 * weights.sum()  # [P]
    rows = torch.stack([torch.autograd.grad(one, weights, retain_graph=True)[0] for one in total], 1)  # [B, P]
    mean = rows.new_zeros(len(world.xs), rows.shape[1])
    mean.index_add_(0, rehearsal.datum, rehearsal.probability.unsqueeze(1) * rows)
    spread = rehearsal.mean(rows.square().sum(1)) - mean.square().sum(1)  # [N]
    return (world.log_data.exp() * spread).sum().item()
