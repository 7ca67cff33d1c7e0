"""VIMCO: the K-particle bound for latents that cannot be reparameterized."""

from typing import ClassVar, Literal

import attrs
from torch import Tensor

from unibound import Backward, Estimate, Estimator, JointBound, hookimpl
from unibound.weights import arithmetic_signal, log_mean_exp, vimco_signal

SIGNALS = {"geometric": vimco_signal, "arithmetic": arithmetic_signal}


def _enough_to_compare(_record: object, _field: object, count: int) -> None:
    if count < 2:
        raise ValueError(
            f"num_particles must be at least 2, to compare each with the others, not {count}; with 1 use nvil"
        )


@attrs.frozen
class VIMCO(Estimator):
    """Multi-sample bound with a score-function gradient and a leave-one-out baseline.

        L_K(x) = E log (1/K) sum_k p*(x, tau_k) / q(tau_k | x) <= log p*(x)

    Each particle is credited with what it adds to the bound, so no baseline has to be learned. The
    gradient is unbiased for L_K, and for K >= 2 does not depend on the log Z of an unnormalized prior.

    Args:
        num_particles: particles K per datum, at least 2 (with one there are no others to compare with).
        baseline: mean of the others' weights that stands in for a particle's own: geometric, as in the
            paper, or arithmetic, which leaves it out of the bound altogether.
        backward: which particles are sent back through p: all, or one per datum, resampled by its weight, which is
            faster the more there are and adds a little noise.

    Source: Mnih and Rezende, "Variational inference for Monte Carlo objectives" (2016),
    https://arxiv.org/abs/1602.06725
    """

    needs: ClassVar[str] = "any q that can be sampled and scored; any p"

    num_particles: int = attrs.field(default=10, validator=_enough_to_compare)
    baseline: Literal["geometric", "arithmetic"] = "geometric"
    backward: Backward = "all"

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        particles = joint.particles(x, self.num_particles, backward=self.backward)
        log_w = particles.log_weights  # [K, B]
        bound = log_mean_exp(log_w)  # [B]
        signal = SIGNALS[self.baseline](log_w.detach())  # [K, B]
        surrogate = -((signal * particles.log_q).sum(0) + bound)
        return Estimate(surrogate, bound.detach(), log_w.detach(), side="lower")

    def check(self, joint: JointBound, x: Tensor) -> None:
        if self.backward == "resampled":
            joint.particles(x, self.num_particles, backward=self.backward)


@hookimpl
def register_estimators(register):
    register("vimco", VIMCO)
