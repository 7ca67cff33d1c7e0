"""Worlds so small that every latent can be listed, and everything about them known exactly.

All are in float64 and none has a symmetry that could hide a wrong sign: no two logits are equal, no
weight is zero, data are weighed unevenly, and the numbers of pixels, latents and particles differ.
"""

import copy
import math
from collections.abc import Callable

import attrs
import torch
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor, nn
from torch.distributions import Distribution

from unibound.draws import Chain
from unibound.errors import UsageError
from unibound.generation import Directed, Generation, Layered
from unibound.joint import JointBound
from unibound.networks import Upward
from unibound.prior import Prior
from unibound.sequences.recurrent import RecurrentGeneration, RecurrentInference
from unibound.support import same, spin
from unibound.testing.listing import all_bits, all_states, gradients, parameter_groups, scatter, tuples, uneven
from unibound.testing.networks import (
    AffineGenerator,
    AffineInference,
    BitGenerator,
    BitInference,
    LinearGenerator,
    LinearInference,
    SpinInference,
    StepFollower,
    Steps,
    TermInference,
)
from unibound.testing.priors import Bell, Rates, Spins
from unibound.weights import log_mean_exp

FEW_NODES = 10
Nodes = Callable[[Distribution], tuple[Tensor, Tensor]]


@attrs.frozen(eq=False)
class World:
    """A joint bound with all there is to know about it.

    Args:
        joint: q and p.
        xs: every datum [N, *X].
        log_data: log D(x) [N], nats.
        taus: every latent [S, *Z]; for reals a grid so fine and wide that sums are integrals.
        log_measure: log of what each latent counts for in a sum [S]; zero where they are listed.
        num_nodes: nodes of the quadrature that stands for draws from q; None where they are listed.
    """

    joint: JointBound
    xs: Tensor
    log_data: Tensor
    taus: Tensor
    log_measure: Tensor
    num_nodes: int | None

    @classmethod
    def of_bits(cls, seed: int = 0, prior: Prior | None = None) -> "World":
        """Three pixels and two latent bits under any prior over bits of shape [2].

        Its parameters are scattered; a prior left out is `Rates`.
        """
        joint = JointBound(BitInference(3, (2,)), Directed(prior or Rates((2,)), BitGenerator(2, 3)))
        return cls.of(joint, seed, 0.8, all_bits((3,)), all_bits((2,)), torch.zeros(4), None)

    @classmethod
    def of_reals(cls, seed: int = 0, prior: Prior | None = None, num_nodes: int = 40) -> "World":
        """A linear-Gaussian world: two pixels and one latent, under any prior over reals of shape [1].

        Draws are nodes of a quadrature through which gradients flow, as they do through `rsample`.
        """
        joint = JointBound(LinearInference(2, (1,)), Directed(prior or Bell((1,)), LinearGenerator(1, 2)))
        xs = 1.3 * torch.randn(4, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        taus = torch.linspace(-30, 30, 6001, dtype=torch.float64).unsqueeze(1)
        return cls.of(joint, seed, 0.2, xs, taus, torch.full((6001,), math.log(0.01), dtype=torch.float64), num_nodes)

    @classmethod
    def of_layers(cls, seed: int = 0, prior: Prior | None = None) -> "World":
        """Two pixels and two layers of one and two latents, under any finite prior of shape [2] on top.

        The top is of spins with an energy if it is left out; q's pieces are then bits and spins.
        """
        prior = prior or Spins((2,))
        top = SpinInference if same(prior.support, spin) else BitInference
        q = Upward([BitInference(2, (1,)), top(1, (2,))], (1, 2))
        joint = JointBound(q, Layered(prior, [BitGenerator(1, 2), BitGenerator(2, 1)], (1, 2)))
        above = all_states(prior.support, (2,))
        taus = torch.cat([all_bits((1,)).repeat_interleave(len(above), 0), above.repeat(2, 1)], 1)
        return cls.of(joint, seed, 0.8, all_bits((2,)), taus, torch.zeros(len(taus)), None)

    @classmethod
    def of_real_layers(cls, seed: int = 0, num_nodes: int = 22) -> "World":
        """Two pixels and two layers of one real each, linear and normal; latents on a grid."""
        q = Upward([LinearInference(2, (1,)), LinearInference(1, (1,))], (1, 1))
        joint = JointBound(q, Layered(Bell((1,)), [LinearGenerator(1, 2), LinearGenerator(1, 1)], (1, 1)))
        xs = 1.3 * torch.randn(3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        line = torch.linspace(-12, 12, 121, dtype=torch.float64)
        taus = torch.cartesian_prod(line, line)
        return cls.of(joint, seed, 0.2, xs, taus, torch.full((len(taus),), 2 * math.log(0.2)).double(), num_nodes)

    @classmethod
    def of_tied_layers(cls, seed: int = 0) -> "World":
        """Two pixels and two layers of two and one latents, affine, with the weights of q those of p, transposed."""
        sizes = (2, 1)
        ups, downs = [AffineInference(2, 2), AffineInference(2, 1)], [AffineGenerator(2, 2), AffineGenerator(1, 2)]
        joint = JointBound(Upward(ups, sizes), Layered(Rates((1,)), downs, sizes))
        taus = all_bits((3,))
        world = cls.of(joint, seed, 0.8, all_bits((2,)), taus, torch.zeros(len(taus)), None)
        for up, down in zip(ups, downs, strict=True):
            up.network.weight.data.copy_(down.network.weight.data.mT)
        return world

    @classmethod
    def of_steps(cls, seed: int = 0, num_nodes: int = 3) -> "World":
        """Sequences of two numbers, with a latent real for each, under a recurrence.

        Draws are nodes of a quadrature so coarse that several particles of both steps can be listed. By the nodes the
        weights of one particle and of several have the same mean, to rounding; log p(x) is that to a few hundredths.
        """
        joint = JointBound(RecurrentInference(StepFollower()), RecurrentGeneration(Steps()))
        xs = 1.3 * torch.randn(3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        line = torch.linspace(-12, 12, 161, dtype=torch.float64)
        taus = torch.cartesian_prod(line, line)
        return cls.of(joint, seed, 0.5, xs, taus, torch.full((len(taus),), 2 * math.log(0.15)).double(), num_nodes)

    @classmethod
    def of(
        cls, joint: JointBound, seed: int, scale: float, xs: Tensor, taus: Tensor, measure: Tensor, nodes: int | None
    ) -> "World":
        """Scatter the parameters, weigh the data unevenly, let p know them, and have its chains moved once."""
        scatter(joint, seed, scale)
        joint.p.bind(joint.q, xs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            joint.advance()
        return cls(joint, xs, uneven(len(xs), seed), taus, measure.double(), nodes)

    def of_terms(self) -> "World":
        """The same, but for a q that says of each draw that it is one term: then means of log-weights alone count."""
        return attrs.evolve(self, joint=JointBound(TermInference(self.joint.q), self.joint.p))

    def nodes(self, posterior: Distribution) -> tuple[Tensor, Tensor]:
        """Draws that stand for q(tau | x) of batch shape [...]: [Q, ..., *Z] and log-probabilities [Q, ...]."""
        if self.num_nodes is None:
            return _listed(posterior, self.taus)
        if isinstance(posterior, Chain):
            return self._nodes_in_turn(posterior)
        # Even nodes converge exponentially, and where log w bends faster than Gauss-Hermite ones, unless they are few.
        if self.num_nodes < FEW_NODES:
            at, weights = hermegauss(self.num_nodes)
            noise, log_weights = torch.from_numpy(at), torch.from_numpy(weights).log()
        else:
            noise = torch.linspace(-8, 8, self.num_nodes, dtype=torch.float64)
            log_weights = -noise.square() / 2
        column = [-1] + [1] * len(posterior.batch_shape)
        tau = posterior.mean + posterior.stddev * noise.to(posterior.mean).view(*column, 1)
        log_prob = log_weights.log_softmax(0).to(tau).view(column)
        return tau, log_prob.expand(-1, *posterior.batch_shape)

    def _nodes_in_turn(self, chain: Chain) -> tuple[Tensor, Tensor]:
        """Nodes of the first piece, and for each of them those of the next, and so on."""
        tau, log_prob = self.nodes(chain.first)  # [Q, ..., Z_1], [Q, ...]
        pieces = [tau]
        for make in chain.rest:
            tau, more = self.nodes(make(pieces))  # [Q', Q, ..., Z_l], [Q', Q, ...]
            pieces = [piece.expand(len(tau), *piece.shape).flatten(0, 1) for piece in pieces] + [tau.flatten(0, 1)]
            log_prob = (log_prob + more).flatten(0, 1)
        return torch.cat(pieces[::-1] if chain.downward else pieces, -1), log_prob

    @torch.no_grad()
    def dreams(self, states: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Everything p may dream, or what it may with each of some states [M, *S].

        Returns:
            x [D, *X], tau [D, *Z] and log-probabilities [D]; with states [M, D, ...], given each of them.
        """
        if self.num_nodes is not None:
            raise UsageError("data dreamed in a world of reals cannot be listed; examine this in a world of bits")
        tau = self.every_tau().flatten(0, 1)
        x = self.xs.expand(len(self.taus), *self.xs.shape).flatten(0, 1)
        log_p = self.log_joint(self.every_tau()).flatten()
        if states is None:
            return x, tau, log_p.log_softmax(0)
        same = (self.p.state(x, tau).unsqueeze(0) == states.unsqueeze(1)).flatten(2).all(2)  # [M, D]
        chosen = torch.stack([row.nonzero().squeeze(1) for row in same])  # as many for each state
        return x[chosen], tau[chosen], log_p[chosen].log_softmax(1)

    def to(self, dtype: torch.dtype) -> "World":
        """A copy in another precision."""
        tensors = {name: getattr(self, name).to(dtype) for name in ("xs", "log_data", "taus", "log_measure")}
        return attrs.evolve(self, joint=copy.deepcopy(self.joint).to(dtype), **tensors)

    @property
    def p(self) -> Generation:
        """The generative model."""
        return self.joint.p

    def states(self) -> tuple[Tensor, Tensor]:
        """Every state of what p is unnormalized by [S', *S], and log of what each counts for in a sum [S']."""
        if self.num_nodes is not None:
            return self.taus, self.log_measure
        states = self.p.state(self.xs, self.every_tau()).flatten(0, 1).unique(dim=0)
        return states, self.log_measure.new_zeros(len(states))

    def every_tau(self) -> Tensor:
        """Every latent beside every datum [S, N, *Z]."""
        return self.taus.unsqueeze(1).expand(-1, len(self.xs), *self.taus.shape[1:])

    def log_z(self) -> Tensor:
        """log of what p* exceeds p by, a scalar in nats, differentiable."""
        prior = self.joint.p.unnormalized
        if prior is None:
            return self.log_data.new_zeros(())
        states, log_measure = self.states()
        return (prior.log_prob(states) + log_measure).logsumexp(0)

    def log_joint(self, tau: Tensor) -> Tensor:
        """log p(x, tau) of every datum, normalized and differentiable: tau [..., N, *Z] to [..., N] nats."""
        # Whatever log_prob takes for the gradient of log Z cancels here, and the exact one takes its place.
        return self.joint.p.log_joint(self.xs, tau) - self.log_z()

    def log_prob(self) -> Tensor:
        """log p(x) of every datum [N], nats, differentiable."""
        return (self.log_joint(self.every_tau()) + self.log_measure.unsqueeze(1)).logsumexp(0)

    def log_posterior(self) -> Tensor:
        """log p(tau | x) of every latent and datum [S, N], nats."""
        return self.log_joint(self.every_tau()) - self.log_prob()

    def bound(self, k: int) -> Tensor:
        """L_K of every datum [N], nats: the K-particle bound by listing all K-tuples, differentiable."""
        posterior = self.joint.q(self.xs)
        tau, log_prob = self.nodes(posterior)  # [Q, N, *Z], [Q, N]
        log_w = self.log_joint(tau) - posterior.log_prob(tau)  # [Q, N]
        index = tuples(len(tau), k).T  # [K, Q^K]
        return (log_prob[index].sum(0).exp() * log_mean_exp(log_w[index])).sum(0)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by group, without the groups that have none."""
        return parameter_groups(self.joint.parts())

    def gradient(self, values: Tensor) -> dict[str, Tensor]:
        """Gradient of E_D[values], for values [N], with respect to each group, flattened."""
        return gradients((self.log_data.exp() * values).sum(), self.groups())


def _listed(made: Distribution, values: Tensor) -> tuple[Tensor, Tensor]:
    """Every value of a distribution of batch shape [...]: [Q, ..., *E], and log-probabilities [Q, ...]."""
    column = values.view(len(values), *[1] * len(made.batch_shape), *made.event_shape)
    return column.expand(-1, *made.batch_shape, *made.event_shape), made.log_prob(column)
