"""Wake-sleep: p learns from data that q explains, q from dreams of p."""

from typing import ClassVar

import attrs
from torch import Tensor

from unibound import Estimate, Estimator, JointBound, hookimpl


@attrs.frozen
class WakeSleep(Estimator):
    """Two phases with two objectives, the second of which is not the bound.

        wake:   generator and prior climb E_q[log p(x, tau)], the gradient of the ELBO, unbiased
        sleep:  q climbs E_p[log q(tau | x)], the gradient of -E_p(x) KL(p(tau | x) || q(tau | x))

    In sleep q learns the posterior of dreams and not of data, in the other direction of KL; so its
    gradient is biased for the ELBO. One dream is made per datum. For a prior with persistent chains
    dreams are as good as the chains.

    Args:
        num_particles: draws per datum in the wake phase, averaged.

    Source: Hinton, Dayan, Frey and Neal, "The wake-sleep algorithm for unsupervised neural networks" (1995),
    https://doi.org/10.1126/science.7761831
    """

    needs: ClassVar[str] = "any q that can be sampled and scored; a p that can be sampled"

    num_particles: int = attrs.field(default=1, validator=attrs.validators.ge(1))

    @property
    def unbiased(self) -> frozenset[str]:
        return frozenset({"generator", "prior"})

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        particles = joint.particles(x, self.num_particles, whole=False)
        log_w = particles.log_weights.detach()  # [K, B]
        wake = particles.log_p.mean(0)  # [B]
        dream, tau = joint.p.dream(len(x))  # [B, *X], [B, *Z]
        sleep = joint.q(dream).log_prob(tau)  # [B]
        return Estimate(-(wake + sleep), log_w.mean(0), log_w, side="lower")


@hookimpl
def register_estimators(register):
    register("wake_sleep", WakeSleep)
