"""The variational Renyi bound, for latents that cannot be reparameterized."""

from typing import ClassVar

import attrs
from torch import Tensor

from unibound import Estimate, Estimator, JointBound, hookimpl
from unibound.weights import log_mean_exp, vimco_signal


@attrs.frozen
class Renyi(Estimator):
    """A family of bounds between the ELBO and log p, by Renyi's divergence of order alpha.

        L_alpha,K(x) = 1 / (1 - alpha) E log (1/K) sum_k w_k^(1 - alpha) <= L_alpha(x) <= log p*(x)

    for 0 <= alpha < 1: with alpha = 0 it is the K-particle bound, and as alpha approaches 1 the ELBO. A
    larger alpha trades tightness for even weights, and so for less variance. Tempered log-weights are
    log-weights, so each particle is credited as in VIMCO; its gradient is unbiased for L_alpha,K.

    It is not the K-particle bound of its particles, so it reports no log-weights.

    Args:
        num_particles: particles K per datum, at least 2.
        alpha: order of the divergence, in [0, 1).

    Source: Li and Turner, "Renyi divergence variational inference" (2016), https://arxiv.org/abs/1602.02311
    """

    needs: ClassVar[str] = "any q that can be sampled and scored; any p"

    num_particles: int = attrs.field(default=10, validator=attrs.validators.ge(2))
    alpha: float = attrs.field(default=0.5, validator=[attrs.validators.ge(0.0), attrs.validators.lt(1.0)])

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        particles = joint.particles(x, self.num_particles)
        order = 1 - self.alpha
        tempered = order * particles.log_weights  # [K, B]
        bound = log_mean_exp(tempered) / order  # [B]
        signal = vimco_signal(tempered.detach()) / order  # [K, B]
        surrogate = -((signal * particles.log_q).sum(0) + bound)
        return Estimate(surrogate, bound.detach(), log_weights=None, side="lower")


@hookimpl
def register_estimators(register):
    register("renyi", Renyi)
