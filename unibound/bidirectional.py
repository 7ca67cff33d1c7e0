"""The model that q and p make together: the bidirectional Helmholtz machine.

Shapes: M chains, C candidates, *X one datum, *Z its latents, X and Z their elements. Everything is in nats.
"""

import torch
from torch import Tensor
from torch.distributions import Distribution

from unibound.draws import Drawn, draw
from unibound.energies.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.generation import Generation
from unibound.networks import Inference
from unibound.prior import Prior
from unibound.support import Constraint, boolean, of, same


class Meeting(EnergyPrior):
    """Where q and p meet, as an energy over a datum and two of its latents (x, h, h'), each laid in a row.

        exp(-F(x, h, h')) = sqrt(p(x, h) q(h | x)) sqrt(p(x, h') q(h' | x))

    Summed over h' it is proportional to p*(x, h) = sqrt(p(x, h) p*(x) q(h | x)) / Z, and over both latents to

        p*(x) = (sum_h sqrt(p(x, h) q(h | x)))^2 / Z^2,   Z^2 = sum_x (sum_h sqrt(p(x, h) q(h | x)))^2 <= 1

    so that the second latent stands for a sum that nobody can do. Here log Z is that of the energy, the log Z^2 above.
    The path leads from p(x, h) q(h' | x), which is drawn exactly, by powers of what p and q disagree about:

        -F_beta = (1 - beta/2) (log p(x, h) + log q(h' | x)) + (beta/2) (log p(x, h') + log q(h | x))

    With no temperature between, annealed importance sampling is the estimate of Z^2 of Bornschein et al. Z^2 is
    estimated without bias, so log Z^2 from below, which flatters p*.

    A step alternates p and q: (x, h') given h from candidates of p(x | h) q(h' | x), then h given x from candidates of
    q(h | x). One of them is chosen by its weight. The state as it stands is a candidate too, so that the model stays
    invariant with however few of them, as it does not in resampling that forgets it.

    Args:
        q: the inference network, in place.
        p: a normalized model that has a p(x | h), in place.
        num_candidates: proposals C of each half step.
        num_chains: persistent chains M.

    Raises:
        UsageError: a p whose log Z is unknown, or without p(x | h).

    Source: Bornschein, Shabanian, Fischer and Bengio, "Bidirectional Helmholtz machines" (2016),
    https://arxiv.org/abs/1506.03877; candidates that include the state, Tjelmeland, "Using all Metropolis-Hastings
    proposals to estimate mean values" (2004); Andrieu, Lee and Vihola, "Uniform ergodicity of the iterated conditional
    SMC and geometric ergodicity of particle Gibbs samplers" (2018), https://arxiv.org/abs/1312.6432
    """

    def __init__(self, q: Inference, p: Generation, *, num_candidates: int = 10, num_chains: int = 100) -> None:
        if p.unnormalized is not None:
            raise UsageError(
                f"q and p make a model together where p is normalized, but {type(p.unnormalized).__name__} is known up "
                "to its log Z; use a prior such as bernoulli or nade"
            )
        if num_candidates < 1 or num_chains < 1:
            raise UsageError(f"candidates and chains must be at least 1, not {num_candidates} and {num_chains}")
        with torch.no_grad(), torch.random.fork_rng():
            x, tau = p.dream(num_chains)
            values = {of(p.conditional(tau)), of(q(x))}
            super().__init__(_joined(x, tau, q(x).sample()), steps=1)
        self.q, self.p, self.num_candidates = q, p, num_candidates
        self.x_shape, self.tau_shape = x.shape[1:], tau.shape[1:]
        self._bits = all(same(one, boolean) for one in values)

    @property
    def support(self) -> Constraint | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Bits where both data and latents are; None elsewhere, where states are not listed."""
        return boolean if self._bits else None

    def pieces(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [..., *X], h and h' [..., *Z] of a state [..., S]."""
        sizes = [self.x_shape.numel(), self.tau_shape.numel(), self.tau_shape.numel()]
        x, one, other = state.split(sizes, -1)
        return x.unflatten(-1, self.x_shape), one.unflatten(-1, self.tau_shape), other.unflatten(-1, self.tau_shape)

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        x, one, other = self.pieces(tau)
        posterior = self.q(x)
        log_p, log_q = self.p.log_joint(x, one), posterior.log_prob(one)
        log_p_other, log_q_other = self.p.log_joint(x, other), posterior.log_prob(other)
        return -(1 - beta / 2) * (log_p + log_q_other) - beta / 2 * (log_p_other + log_q)

    @torch.no_grad()
    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        x, one, other = self.pieces(tau)
        count = (self.num_candidates,)
        for _ in range(steps):
            xs = torch.cat([x.unsqueeze(0), self.p.conditional(one).sample(count)])  # [C + 1, M, *X]
            posterior = self.q(xs)
            others = torch.cat([other.unsqueeze(0), posterior.sample()[1:]])
            gain = self._log_w(posterior, xs, others) - self._log_w(posterior, xs, one.expand_as(others))
            x, other = _chosen(beta / 2 * gain, xs, others)
            posterior = self.q(x)
            ones = torch.cat([one.unsqueeze(0), posterior.sample(count)])
            (one,) = _chosen((1 - beta / 2) * self._log_w(posterior, x, ones), ones)
        return _joined(x, one, other)

    def _log_w(self, posterior: Distribution, x: Tensor, tau: Tensor) -> Tensor:
        return self.p.log_joint(x, tau) - posterior.log_prob(tau)

    @torch.no_grad()
    def base_sample(self, count: int) -> Tensor:
        x, one = self.p.dream(count)
        return _joined(x, one, self.q(x).sample())

    def base_log_z(self) -> float:
        return 0.0

    def fit_base(self, tau: Tensor) -> None:
        """Nothing to fit: p and q are the base."""

    def sample(self, count: int) -> Tensor:
        """Draw [count, S] from chains of their own, which begin at dreams of p."""
        return self.move(self.base_sample(count), self.mixing_steps)


class Bidirectional(Generation):
    """p*(x), up to its log Z: tau is a pair of latents (h, h') in a row, as `Twice` draws it. See `Meeting`.

    It is for evaluation and draws. What trains q and p towards it needs no log Z: as that is at most 0, a bound of what
    it lacks is one of log p*(x).
    """

    def __init__(self, q: Inference, p: Generation, *, num_candidates: int = 10, num_chains: int = 100) -> None:
        super().__init__()
        self.prior = Meeting(q, p, num_candidates=num_candidates, num_chains=num_chains)

    @property
    def unnormalized(self) -> Prior:
        return self.prior

    def state(self, x: Tensor, tau: Tensor) -> Tensor:
        row = x.flatten(x.dim() - len(self.prior.x_shape)) if self.prior.x_shape else x.unsqueeze(-1)
        lead = torch.broadcast_shapes(row.shape[:-1], tau.shape[:-1])
        return torch.cat([row.expand(*lead, -1), tau.expand(*lead, -1)], -1)

    def complete(self, state: Tensor) -> Tensor:
        return state[..., self.prior.x_shape.numel() :]

    def log_joint(self, x: Tensor, tau: Tensor) -> Tensor:
        return self.prior.log_prob(self.state(x, tau))

    @torch.no_grad()
    def dream(self, count: int, *, persistent: bool = False) -> tuple[Tensor, Tensor]:
        state = self.prior.persistent(count) if persistent else self.prior.sample(count)
        return self.prior.pieces(state)[0], self.complete(state)

    def parts(self) -> dict[str, torch.nn.Module]:
        return {"prior": self.prior}

    def advance(self) -> None:
        self.prior.advance()


class Twice(Inference):
    """q(h | x) q(h' | x): two independent latents of each datum, side by side in a row.

    The network of another q, whose parameters stay where they are.
    """

    def __init__(self, q: Inference) -> None:
        super().__init__()
        self._q = (q,)  # in a tuple, so that its parameters are registered once

    def forward(self, x: Tensor) -> Distribution:
        return Pair(self._q[0](x))


class Pair(Drawn):
    """Two independent draws of one distribution, each laid in a row, side by side: [..., 2 Z]."""

    has_rsample = False

    def __init__(self, base: Distribution) -> None:
        self.base = base
        super().__init__(base.batch_shape, torch.Size([2 * base.event_shape.numel()]), validate_args=False)

    @property
    def support(self) -> Constraint | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return of(self.base)

    def log_prob(self, value: Tensor) -> Tensor:
        """log-probability of both [...] nats, of value [..., 2 Z]."""
        halves = (half.unflatten(-1, self.base.event_shape) for half in value.chunk(2, -1))
        return sum((self.base.log_prob(half) for half in halves), value.new_zeros(()))

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        if reparameterized:
            raise UsageError("pairs of latents have no reparameterized draws; use an estimator that needs none")
        value, log_q = draw(self.base, 2 * count)
        rows = value.flatten(value.dim() - len(self.base.event_shape))
        return torch.cat(rows.chunk(2), -1), sum(log_q.chunk(2), log_q.new_zeros(()))


def _joined(x: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """The state [M, S] of x [M, *X], h and h' [M, *Z]."""
    return torch.cat([piece.flatten(1) for piece in (x, one, other)], 1)


def _chosen(log_w: Tensor, *candidates: Tensor) -> list[Tensor]:
    """One candidate per chain, drawn by its weight: log_w [C, M] nats and candidates [C, M, ...] to [M, ...]."""
    index = torch.distributions.Categorical(logits=log_w.mT, validate_args=False).sample()  # [M]
    return [one[index, torch.arange(len(index), device=index.device)] for one in candidates]
