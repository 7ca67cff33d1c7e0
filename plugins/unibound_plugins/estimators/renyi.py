"""Renyi bounds: one family from the ELBO over the K-particle bound to the bidirectional Helmholtz machine."""

from collections.abc import Mapping
from typing import ClassVar

import attrs
from torch import Tensor

from unibound import Estimate, Estimator, JointBound, Side, UsageError, hookimpl
from unibound.bidirectional import Bidirectional, Twice
from unibound.weights import renyi_bound, renyi_signal


@attrs.frozen
class Renyi(Estimator):
    """A power mean of the weights, with a score-function gradient and a leave-one-out baseline.

        L_alpha(x) = 1 / (1 - alpha) log (1/K) sum_k w_k^(1 - alpha),   w_k = p*(x, tau_k) / q(tau_k | x)

    alpha = 1 is the ELBO and alpha = 0 the K-particle bound of vimco. At alpha = 1/2 it is that of the bidirectional
    Helmholtz machine, 2 log sum_tau sqrt(p(x, tau) q(tau | x)) as K grows: the log-likelihood, up to its own log Z,
    of another model that p and q make together, p*, and at most log p(x). Since that log Z is at most 0, it bounds
    log p*(x) as well, so that p* is trained without it; where p is normalized and has a p(x | tau), a run evaluates p*
    beside p and draws from it, under the name `bihm` (see `Bidirectional`). With alpha below 0 the bound for K without
    end lies above log p(x), but that of K particles need not, and no side is claimed.

    The gradient is unbiased for every group, K = 1 included, where it has no baseline.

    Args:
        alpha: order of the divergence.
        num_particles: particles K per datum.

    Source: Li and Turner, "Renyi divergence variational inference" (2016), https://arxiv.org/abs/1602.02311;
    Bornschein, Shabanian, Fischer and Bengio, "Bidirectional Helmholtz machines" (2016),
    https://arxiv.org/abs/1506.03877, who give q the self-normalized gradient of log q instead
    """

    needs: ClassVar[str] = "any q that can be sampled and scored; any p"

    alpha: float = 0.5
    num_particles: int = attrs.field(default=10, validator=attrs.validators.ge(1))

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        particles = joint.particles(x, self.num_particles)
        log_w = particles.log_weights  # [K, B]
        bound = renyi_bound(log_w, self.alpha)  # [B]
        signal = renyi_signal(log_w.detach(), self.alpha)  # [K, B]
        surrogate = -((signal * particles.log_q).sum(0) + bound)
        # Only at the two ends is it a bound that log-weights have by themselves.
        log_weights = log_w.detach() if self.alpha in (0.0, 1.0) else None
        return Estimate(surrogate, bound.detach(), log_weights, Side.LOWER if self.alpha >= 0 else Side.NONE)

    def makes(self, joint: JointBound) -> Mapping[str, JointBound]:
        if self.alpha != 0.5:
            return {}
        try:
            return {"bihm": JointBound(Twice(joint.q), Bidirectional(joint.q, joint.p))}
        except UsageError:  # p lacks its log Z, or p(x | tau): then there is p alone
            return {}


@hookimpl
def register_estimators(register):
    register("renyi", Renyi)
