"""The two joints every method coaxes into agreement: q(x, tau) = D(x) q(tau | x) and p(x, tau).

Shapes: K particles, B batch, *X one datum, *Z one latent, M chains. Everything is in nats.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import attrs
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from unibound import support
from unibound.data.rows import Data
from unibound.draws import Drawn, draw, draw_pieces, log_pieces, unscored
from unibound.errors import UsageError
from unibound.generation import Generation
from unibound.networks import Inference
from unibound.weights import Layers, choose

Backward = Literal["all", "resampled"]
"""Which particles are sent back through p: all, or of each datum one that is drawn by its weight, for all."""


@attrs.define(eq=False)  # not frozen: Dynamo cannot trace how a frozen one is made
class Particles:
    """K latents per datum, drawn from q(tau | x).

    Args:
        tau: latents [K, B, *Z].
        log_q: log q(tau | x) [K, B], nats.
        log_p: log p*(x, tau) [K, B], nats.
        posterior: the q(tau | x) that they were drawn from, if it is wanted for more.
        layers: the same by layer, if that was asked for.
    """

    tau: Tensor
    log_q: Tensor
    log_p: Tensor
    posterior: Distribution | None = None
    layers: Layers | None = None

    @property
    def log_weights(self) -> Tensor:
        """log w = log p*(x, tau) - log q(tau | x)  [K, B], nats; per datum, never summed over the batch."""
        return self.log_p - self.log_q


CACHED_ROWS = 1024
"""Particles that a CPU scores at once: what they need between the layers then stays in its caches."""
DEVICE_ROWS = 1 << 15
"""The same elsewhere, where a launch costs more than memory does."""


@torch.no_grad()
def _in_parts(score: Callable[[Tensor], Tensor], tau: Tensor) -> Tensor:
    """Scores [K, B] of tau [K, B, *Z], without a graph and few particles at a time."""
    rows = CACHED_ROWS if tau.device.type == "cpu" else DEVICE_ROWS
    return torch.cat([score(few) for few in tau.split(max(1, rows // tau.shape[1]))])


def _lend(one: Tensor, values: Tensor) -> Tensor:
    """Values [K, B] of all particles with the gradient of one [B]."""
    return values.detach() + (one - one.detach())


def _path(posterior: Distribution, tau: Tensor, log_q: Tensor) -> Tensor:
    """log q of draws without its score: the total derivative less that at draws held still.

    A second pass through q with its parameters detached would score another distribution wherever q has dropout. What
    scores while it draws knows the pieces of tau, and not tau, where the way back may be weighed: it is asked again.
    """
    score = posterior.log_prob(tau.detach())
    total = posterior.log_prob(tau) if isinstance(posterior, Drawn) else log_q
    return log_q.detach() + (total - total.detach()) - (score - score.detach())


def _require_one_each(name: str, value: Tensor, tau: Tensor) -> None:
    """Raise UsageError unless a log-probability is one number for each latent of tau [K, B, *Z]."""
    k, batch = tau.shape[:2]
    if value.shape != (k, batch):
        raise UsageError(
            f"{name} of {k} particles of {batch} data has shape {list(value.shape)}, not [{k}, {batch}]: "
            "wrap its distribution in Independent(..., n), with n the dimensions of one event"
        )


@attrs.frozen
class Divergence:
    """The identity the project is named for, in nats: bound = kl - E_D[log D(x)] >= nll = E_D[-log p(x)]."""

    kl: float
    bound: float
    nll: float


class JointBound(nn.Module):
    """q(x, tau) = D(x) q(tau | x) against p(x, tau).

        KL(q(x, tau) || p(x, tau)) = KL(D(x) || p(x)) + E_D KL(q(tau | x) || p(tau | x))

    so KL(q || p) - E_D[log D] is an upper bound on E_D[-log p(x)], tight where q is the posterior.
    log D cancels, and is never asked for: an estimator sees only `particles` (and dreams of p).

    Args:
        q: the inference network; it gets to know p.
        p: the generative model.

    Source: Bachman and Precup, "Training deep generative models: variations on a theme" (2015).
    """

    def __init__(self, q: Inference, p: Generation) -> None:
        super().__init__()
        self.q = q
        self.p = p
        self.auxiliary: nn.Module | None = None  # parameters an estimator asked for; see Estimator.auxiliary
        self._scores_alike = False  # whether p was seen to score a latent as it did before
        q.bind(p)

    def particles(
        self,
        x: Tensor,
        k: int,
        *,
        reparameterized: bool = False,
        path_only: bool = False,
        whole: bool = True,
        by_layer: bool = False,
        backward: Backward = "all",
    ) -> Particles:
        """Draw k latents per datum of x [B, *X] and score them under both joints.

        Resampled, all are scored without a graph, and one per datum, drawn by its weight w~, is sent through it:

            E[grad log p*(x, tau_i)] = sum_k w~_k grad log p*(x, tau_k),   i ~ w~

        It lends its gradient to the log_p of every particle, and where draws are reparameterized to every log_q. So
        what is linear in grad log p with coefficients w~, as the gradient of a K-particle bound is, keeps its
        expectation, while time and memory no longer grow by K passes back through p. Weighed otherwise it is biased.

        Args:
            x: data [B, *X].
            k: number of particles K.
            reparameterized: let gradients flow through the draw (`rsample`); otherwise tau is detached.
            path_only: let log_q depend on q's parameters through tau alone, without the score.
            whole: refuse draws that each stand for one term of tau, of which only means mean anything.
            by_layer: score layer by layer, all particles being sent back and with the score of q.
            backward: which particles are sent back through p.
        Raises:
            UsageError: q and p are not over the same latents, x is not what p is over, a log-probability is not
                one number per particle and datum, or p scores a resampled latent anew each time it is asked.
        """
        posterior = self.q(x)
        if whole and _is_partial(posterior):
            raise UsageError(
                f"{type(posterior).__name__} draws one term of tau at a time: the mean of its log-weights is a bound, "
                "but K of them make no K-particle bound; use sgvb, which averages"
            )
        if by_layer:
            return self._by_layer(x, posterior, *draw_pieces(posterior, k, reparameterized=reparameterized))
        every = backward == "all" or not torch.is_grad_enabled()
        if reparameterized and not (every or isinstance(posterior, Drawn)):
            tau = unscored(posterior, k, reparameterized=True)
            log_q = _in_parts(posterior.log_prob, tau)  # the one that is chosen is scored again, with a graph
        else:
            tau, log_q = draw(posterior, k, reparameterized=reparameterized)  # [K, B, *Z], [K, B]
        self._require_latents(posterior, tau)
        _require_one_each("log q(tau | x)", log_q, tau)
        if every:
            log_p = self.p.log_joint(x, tau) if path_only else self.p.log_joint_along(x, tau, posterior)
            _require_one_each("log p(x, tau)", log_p, tau)
            return Particles(tau, _path(posterior, tau, log_q) if path_only else log_q, log_p, posterior)
        log_p = self._scored(x, tau)
        _require_one_each("log p(x, tau)", log_p, tau)
        at = self.choose(log_p - log_q.detach())[0], torch.arange(len(x), device=x.device)
        chosen = tau[at].unsqueeze(0)  # [1, B, *Z]
        if reparameterized:
            log_chosen = log_q[at] if isinstance(posterior, Drawn) else posterior.log_prob(chosen)
            log_q = _lend(_path(posterior, chosen, log_chosen) if path_only else log_chosen, log_q)
        return Particles(tau, log_q, _lend(self.p.log_joint(x, chosen), log_p), posterior)

    def _by_layer(self, x: Tensor, posterior: Distribution, tau: Tensor, log_q: list[Tensor]) -> Particles:
        self._require_latents(posterior, tau)
        terms = self.p.log_terms(x, tau)
        layers, whole = Layers.of(terms, log_q), terms.sum(0)
        _require_one_each("log q(tau | x)", log_q[0], tau)
        _require_one_each("log p(x, tau)", whole, tau)
        return Particles(tau, sum(log_q[1:], log_q[0]), whole, posterior, layers)

    def choose(self, log_w: Tensor, count: int = 1) -> Tensor:
        """Draw particles of each datum by their weights: log_w [K, B] to their numbers [count, B]."""
        return choose(log_w, count)

    @torch.no_grad()
    def _scored(self, x: Tensor, tau: Tensor) -> Tensor:
        """log p*(x, tau) [K, B] of tau [K, B, *Z], few particles at a time; refused where a second score would differ.

        Dropout draws anew, and batch normalization looks at the others in the batch: the particle that is chosen by
        one score would then be sent through another network.
        """
        if self.p.training and not self._scores_alike:
            few, some = x[:2], tau[:4, :2]
            whole, again = self.p.log_joint(few, some), self.p.log_joint(few, some)
            apart = torch.cat([self.p.log_joint(few, one) for one in some.split(1)])
            same = torch.allclose(whole, again, rtol=0, atol=0, equal_nan=True)
            if not (same and torch.allclose(whole, apart, rtol=1e-3, atol=1e-2, equal_nan=True)):
                raise UsageError(
                    "p scores a latent anew each time it is asked, as with dropout or batch normalization, so that one "
                    "particle cannot be sent back for all; use backward all, or a p without them"
                )
            self._scores_alike = True
        return _in_parts(lambda few: self.p.log_joint(x, few), tau)

    def _require_latents(self, posterior: Distribution, tau: Tensor) -> None:
        """Raise UsageError for a q over other values than p's; one that cannot tell shows it by its first draw."""
        wanted, own = self.p.support, support.of(posterior)
        cure = "choose a likelihood for q, the posterior, that is over the same"
        support.require_within(own, f"q(tau | x), {type(posterior).__name__},", wanted, "the prior is", cure)
        if own is None:
            support.require(wanted, tau[0, :1], "the prior")

    def draws_terms(self, x: Tensor) -> bool:
        """Whether a draw from q stands for one term of tau, of which only means mean anything."""
        return _is_partial(self.q(x))

    @torch.no_grad()
    def check(self, x: Data) -> None:
        """Raise UsageError unless q, p and every datum of x [N, *X] fit together; nothing is left changed by it."""
        with self.evaluating(), torch.random.fork_rng():
            tau = self.particles(x[:1], 1, whole=False).tau
            try:
                conditional = self.p.conditional(tau)
            except UsageError:  # then log_joint alone knows what x may be
                return
            if conditional.event_shape != x.shape[1:]:
                raise UsageError(
                    f"p(x | tau) has events of shape {list(conditional.event_shape)}, but a datum has "
                    f"{list(x.shape[1:])}; give the data the shape that the model was built for"
                )
            for batch in x.split(10_000):
                support.require(support.of(conditional), batch.cpu(), "p(x | tau)")

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode for as long as it is looked at; then each module is back in the mode it was in."""
        before = {module: module.training for module in self.modules()}
        try:
            self.eval()
            yield
        finally:
            for module, training in before.items():
                module.training = training

    def log_weight_terms(self, x: Tensor, tau: Tensor) -> Tensor:
        """What each layer adds to the log-weights of tau [K, B, *Z]: [L + 1, K, B] nats, the datum's own term first.

        Layer l has log p(tau_l | ...) - log q(tau_l | ...), whose mean is minus a divergence for the top layer alone.
        Where q is no chain of as many pieces as p has layers, all latents are one, of mean -KL(q(tau | x) || p(tau));
        where p does not tell its terms apart, there is one: [1, K, B].
        """
        return Layers.of(self.p.log_terms(x, tau), log_pieces(self.q(x), tau)).log_weights

    def advance(self) -> None:
        """Move the persistent chains on. Call once before each training step."""
        self.p.advance()

    def parts(self) -> dict[str, nn.Module]:
        """Modules by parameter group: q, then those of p, then the estimator's auxiliary, if any."""
        auxiliary = {} if self.auxiliary is None else {"auxiliary": self.auxiliary}
        return {"q": self.q, **self.p.parts(), **auxiliary}

    @torch.no_grad()
    def divergence(self, x: Tensor, log_data: Tensor, taus: Tensor) -> Divergence:
        """Compute the joint KL and its bound exactly, on a world small enough to be listed.

        Args:
            x: every datum that D supports [N, *X].
            log_data: log D(x) [N], nats.
            taus: every latent [S, *Z].
        Returns:
            KL(q || p), KL - E_D[log D], and E_D[-log p(x)], where p is normalized by listing.
        """
        every = taus.unsqueeze(1).expand(-1, len(x), *taus.shape[1:])  # [S, N, *Z]
        log_q = self.q(x).log_prob(every).double()  # [S, N]
        log_p = self.p.log_joint(x, every).double()
        if self.p.unnormalized is not None:
            states = self.p.state(x, every).flatten(0, 1).unique(dim=0)
            log_p = log_p - self.p.unnormalized.log_prob(states).double().logsumexp(0)
        data = log_data.double().exp()
        kl = (data * log_q.exp() * (log_data + log_q - log_p)).sum()
        nll = -(data * log_p.logsumexp(0)).sum()
        return Divergence(kl=kl.item(), bound=(kl - (data * log_data).sum()).item(), nll=nll.item())


def _is_partial(posterior: Distribution) -> bool:
    return isinstance(posterior, Drawn) and posterior.partial
