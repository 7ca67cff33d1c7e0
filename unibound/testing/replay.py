"""Hand an estimator chosen draws, all of them, and so know what it expects exactly.

A row of the batch is one datum with one outcome of every draw that the estimator makes for it. The
estimator is run as it stands, by its own `__call__`: the sum of probability times bound over the rows is
the exact E[bound], and the gradient of the sum of probability times surrogate the exact expected gradient.
"""

import copy
from collections.abc import Iterator

import attrs
import torch
from torch import Tensor

from unibound.errors import UsageError
from unibound.estimator import Estimate, Estimator
from unibound.joint import EnergyPrior, JointBound, Particles
from unibound.testing.worlds import World, gradients, parameter_groups, scatter

MAX_ROWS = 1 << 20


class Replay(JointBound):
    """A world's joint whose draws are read off the rows' numbers, digit by digit, instead of drawn.

    Row r is datum r mod N; the rest of r says which outcome each draw has, in the order they are made.
    """

    def __init__(self, world: World, rows: Tensor) -> None:
        super().__init__(world.joint.q, copy.copy(world.joint.p))
        self.p.dream = self._dream
        self.world = world
        self.datum = rows % len(world.xs)  # [B]
        self.log_prob = torch.zeros(len(rows), dtype=world.xs.dtype)  # [B]; of the row's draws given its datum
        self.drawn: list[Particles] = []
        self.num_rows = len(world.xs)  # of a batch that lists every outcome of the draws made so far
        self._rest = rows // len(world.xs)

    def particles(self, x: Tensor, k: int, *, reparameterized: bool = False) -> Particles:
        posterior = self.q(x)
        if reparameterized and not posterior.has_rsample:
            raise UsageError(f"reparameterized particles of {type(posterior).__name__}, which has none")
        nodes, log_prob = self.world.nodes(posterior)  # [Q, B, *Z], [Q, B]
        self._check("particles of", len(x))
        pick, column = self._digits(len(nodes), k), torch.arange(len(x))  # [K, B], [B]
        self.log_prob = self.log_prob + log_prob.detach()[pick, column].sum(0)
        tau = nodes[pick, column] if reparameterized else nodes[pick, column].detach()
        self.drawn.append(Particles(tau, posterior.log_prob(tau), self.p.log_joint(x, tau)))
        return self.drawn[-1]

    def _dream(self, count: int, *, persistent: bool = False) -> tuple[Tensor, Tensor]:
        xs, taus, prior = self.world.xs, self.world.taus, self.world.p.prior
        self._check("dreams of", count)
        if not self.world.closed:
            raise UsageError("dreams of this world cannot be listed; examine this estimator in a world of bits")
        with torch.no_grad():
            if persistent and isinstance(prior, EnergyPrior):
                tau = prior.persistent(count)
            else:
                pick = self._digits(len(taus), 1)[0]  # [B]
                tau = taus[pick]
                self.log_prob = self.log_prob + prior.log_prob(taus).log_softmax(0)[pick]
            x = xs[self._digits(len(xs), 1)[0]]
            self.log_prob = self.log_prob + self.world.p.generator(tau).log_prob(x)
        return x, tau

    def _digits(self, base: int, count: int) -> Tensor:
        """The next digits of every row: [count, B]."""
        picked = []
        for _ in range(count):
            picked.append(self._rest % base)
            self._rest = self._rest // base
        self.num_rows *= base**count
        return torch.stack(picked)

    def _check(self, what: str, count: int) -> None:
        if count != len(self.datum):
            raise UsageError(f"asked for {what} {count} data in a batch of {len(self.datum)}; ask for one per datum")


@attrs.frozen(eq=False)
class Rehearsal:
    """What an estimator said of every row.

    Args:
        estimate: of the whole batch of rows.
        joint: the replayed joint, with what was drawn.
        datum: number of each row's datum [B].
        probability: of each row's draws, given its datum [B], detached.
    """

    estimate: Estimate
    joint: Replay
    datum: Tensor
    probability: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Exact expectation over the draws for each datum: [B] to [N]."""
        return torch.zeros_like(self.joint.world.log_data).index_add(0, self.datum, self.probability * values)


def rehearse(world: World, estimator: Estimator, rows: Tensor | None = None) -> Rehearsal:
    """Run an estimator on rows [B], by default on all there are.

    Raises:
        UsageError: if its draws are too many to be listed, or not one per datum.
    """
    if rows is None:
        rows = torch.arange(count_rows(world, estimator))
    joint = Replay(world, rows)
    joint.auxiliary = estimator.auxiliary(world.xs)
    if joint.auxiliary is not None:
        scatter(joint.auxiliary, seed=3)
    estimate = estimator(joint, world.xs[joint.datum])
    return Rehearsal(estimate, joint, joint.datum, joint.log_prob.exp())


def count_rows(world: World, estimator: Estimator) -> int:
    """How many rows list every datum with every outcome of the estimator's draws."""
    count = rehearse(world, estimator, torch.arange(len(world.xs))).joint.num_rows
    if count > MAX_ROWS:
        raise UsageError(f"{type(estimator).__name__} has {count} outcomes here; examine it with fewer particles")
    return count


def expected_bound(world: World, estimator: Estimator) -> Tensor:
    """Exact E[bound] of every datum [N], nats."""
    rehearsal = rehearse(world, estimator)
    assert rehearsal.estimate.bound is not None
    return rehearsal.mean(rehearsal.estimate.bound)


def expected_gradient(world: World, estimator: Estimator) -> dict[str, Tensor]:
    """Exact expectation, over data, draws and chains, of the direction of ascent, by parameter group."""
    total: dict[str, Tensor] = {}
    for weight in exact_chains(world):
        rehearsal = rehearse(world, estimator)
        value = -(world.log_data.exp() * rehearsal.mean(rehearsal.estimate.surrogate)).sum()
        for name, gradient in gradients(weight * value, parameter_groups(rehearsal.joint.parts())).items():
            total[name] = total.get(name, 0) + gradient
    return total


def exact_chains(world: World) -> Iterator[float]:
    """Set the prior's chains to one latent after another, and yield the probability of each.

    A surrogate is linear in the mean over the chains, so this gives what stationary chains would.
    """
    prior = world.joint.p.unnormalized
    if not isinstance(prior, EnergyPrior):
        yield 1.0
        return
    before = prior.chains
    probability = (-prior.free_energy(world.taus)).softmax(0)
    try:
        for tau, weight in zip(world.taus, probability.tolist(), strict=True):
            prior.chains = tau.unsqueeze(0)
            yield weight
    finally:
        prior.chains = before


def variance(world: World, estimator: Estimator, group: str) -> float:
    """Exact variance, over the draws for one datum, of a group's gradient; averaged over data."""
    rehearsal = rehearse(world, estimator)
    groups = {group: parameter_groups(rehearsal.joint.parts())[group]}
    rows = torch.stack([gradients(value, groups)[group] for value in rehearsal.estimate.surrogate])  # [B, P]
    mean = torch.zeros(len(world.xs), rows.shape[1]).double()
    mean.index_add_(0, rehearsal.datum, rehearsal.probability.unsqueeze(1) * rows)
    spread = rehearsal.mean(rows.square().sum(1)) - mean.square().sum(1)  # [N]
    return (world.log_data.exp() * spread).sum().item()
