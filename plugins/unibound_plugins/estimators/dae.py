"""The denoising autoencoder as a joint bound: the prior is what q makes of the data."""

import math
from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor
from torch.distributions import Distribution

from unibound import Estimate, Estimator, JointBound, UsageError, hookimpl
from unibound.distributions import pairwise_log_prob


def leave_one_out(log_q: Tensor) -> Tensor:
    """log of the mean density of each draw under the other data of its batch: [K, B, B] to [K, B] nats.

        log (1 / (B - 1)) sum_{m != b} q(tau_kb | x_m)

    It under-estimates E[log q(tau)], so that a bound made of it errs on the safe side. Counting the
    datum that made tau, too, over-estimates: information would never exceed log B.

    Args:
        log_q: log q(tau_kb | x_m) [K, B, M = B].
    """
    others = log_q.masked_fill(torch.eye(log_q.shape[-1], dtype=torch.bool, device=log_q.device), -math.inf)
    return others.logsumexp(-1) - math.log(log_q.shape[-1] - 1)


def information(posterior: Distribution, tau: Tensor) -> Tensor:
    """log q(tau | x) - log q(tau), q(tau) averaged over the other data: draws [K, B, *Z] to [K, B] nats."""
    return posterior.log_prob(tau) - leave_one_out(pairwise_log_prob(posterior, tau))


@torch.no_grad()
def walkback(joint: JointBound, x: Tensor, steps: int) -> Tensor:
    """Walk from data x [B, *X] by tau ~ q(tau | x), x ~ p(x | tau), and return where it ends [B, *X].

    Where the generator is the posterior of x under q, the data distribution is invariant.

    Source: Bengio, Yao, Alain and Vincent, "Generalized denoising auto-encoders as generative models" (2013),
    https://arxiv.org/abs/1305.6663
    """
    for _ in range(steps):
        x = joint.p.conditional(joint.q(x).sample()).sample()
    return x


@attrs.frozen
class DAE(Estimator):
    """Reconstruction of data from what q made of them, and what it lacks to be a bound.

        KL(q || p) + H(D) = R + I,  R = E_q[-log p(x | tau)],  I = E_q[log q(tau | x) - log q(tau)]

    holds for the convolved prior p(tau) = q(tau) = E_D q(tau | x). The surrogate is R. For the generator
    that is the exact gradient, and for a q without parameters, a fixed corruption, there is no other. A q
    that learns also needs the gradient of I, without which it is pushed to corrupt nothing; `exact` has it.
    R alone is no bound on the likelihood, R + I is.

    Args:
        num_particles: draws per datum, averaged; they lower the variance.
        information: how I enters. `none`: not at all, and no bound is claimed. `leave_one_out`: in the
            reported bound, with q(tau) averaged over the rest of the batch; conservative on average over
            data, but never for a datum alone, so no side is claimed. `exact`: in bound and gradient, with
            log p(tau) of the prior, which is to be `convolved` (under another it is that one's ELBO).

    Source: Vincent et al., "Extracting and composing robust features with denoising autoencoders" (2008);
    Bachman and Precup, "Training deep generative models: variations on a theme" (2015), where the
    gradient of I is missing.
    """

    needs: ClassVar[str] = "any q and p; made for a fixed corruption and the convolved prior"

    num_particles: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    information: Literal["none", "leave_one_out", "exact"] = "none"

    @property
    def untrained(self) -> frozenset[str]:
        return frozenset() if self.information == "exact" else frozenset({"prior"})

    @property
    def unbiased(self) -> frozenset[str]:
        return frozenset({"q", "generator", "prior"} if self.information == "exact" else {"generator"})

    @property
    def persistent(self) -> bool:
        return self.information == "exact"

    def check(self, joint: JointBound, x: Tensor) -> None:
        if self.information == "exact":
            return
        with torch.random.fork_rng(), joint.evaluating():
            surrogate = self(joint, x).surrogate  # refuses a p without p(x | tau)
        if not surrogate.requires_grad:
            raise UsageError("dae learns by p(x | tau), in which nothing can be learned here; use sgvb or iwae")

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        if self.information == "exact":
            return self._elbo(joint, x)
        posterior = joint.q(x)
        draw = posterior.rsample if posterior.has_rsample else posterior.sample
        tau = draw((self.num_particles,))  # [K, B, *Z]
        log_p = joint.p.conditional(tau).log_prob(x)  # [K, B]
        # A corruption without parameters has no score, and a draw with a path needs none.
        scored = not posterior.has_rsample and any(parameter.requires_grad for parameter in joint.q.parameters())
        surrogate = _surrogate(log_p, posterior.log_prob(tau) if scored else None)
        bound = None
        if self.information == "leave_one_out" and len(x) > 1:
            bound = (log_p - information(posterior, tau)).mean(0).detach()  # [B]
        return Estimate(surrogate, bound, log_weights=None, side="none")

    def _elbo(self, joint: JointBound, x: Tensor) -> Estimate:
        pathwise = joint.q(x).has_rsample
        particles = joint.particles(x, self.num_particles, reparameterized=pathwise)
        log_w = particles.log_weights  # [K, B]
        surrogate = _surrogate(log_w, None if pathwise else particles.log_q)
        return Estimate(surrogate, log_w.mean(0).detach(), log_w.detach(), side="lower")


def _surrogate(values: Tensor, log_q: Tensor | None) -> Tensor:
    """What has the gradient of -E_q[values]: [K, B] to [B]; log_q where draws carry none themselves."""
    if log_q is None:
        return -values.mean(0)
    signal = values.detach()  # [K, B]
    if (k := len(signal)) > 1:
        signal = (signal - signal.mean(0)) * k / (k - 1)  # less the mean of the others
    return -(values + signal * log_q).mean(0)


@hookimpl
def register_estimators(register):
    register("dae", DAE)
