"""VIMCO: the K-particle bound for latents that cannot be reparameterized."""

from typing import ClassVar

import attrs
from torch import Tensor

from unibound import Estimate, Estimator, JointBound, hookimpl
from unibound.weights import log_mean_exp, vimco_signal


@attrs.frozen
class VIMCO(Estimator):
    """Multi-sample bound with a score-function gradient and a leave-one-out baseline.

        L_K(x) = E log (1/K) sum_k p*(x, tau_k) / q(tau_k | x) <= log p*(x)

    Each particle is credited with what it adds to the bound, so no baseline has to be learned. The
    gradient is unbiased for L_K, and for K >= 2 does not depend on the log Z of an unnormalized prior.

    Args:
        num_particles: particles K per datum, at least 2 (with one there are no others to compare with).

    Source: Mnih and Rezende, "Variational inference for Monte Carlo objectives" (2016),
    https://arxiv.org/abs/1602.06725
    """

    needs: ClassVar[str] = "any q that can be sampled and scored; any p"

    num_particles: int = attrs.field(default=10, validator=attrs.validators.ge(2))

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        particles = joint.particles(x, self.num_particles)
        log_w = particles.log_weights  # [K, B]
        bound = log_mean_exp(log_w)  # [B]
        signal = vimco_signal(log_w.detach())  # [K, B]
        surrogate = -((signal * particles.log_q).sum(0) + bound)
        return Estimate(surrogate, bound.detach(), log_w.detach(), side="lower")


@hookimpl
def register_estimators(register):
    register("vimco", VIMCO)
