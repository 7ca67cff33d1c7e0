"""RWS: wake-sleep with the wake phase reweighted by K particles."""

from typing import ClassVar

import attrs
from torch import Tensor

from unibound import Backward, Estimate, Estimator, JointBound, UsageError, hookimpl
from unibound.weights import log_mean_exp, reweighted


@attrs.frozen
class RWS(Estimator):
    """Reweighted wake-sleep: p climbs the K-particle bound, q moves toward the posterior.

        wake p:   sum_k w~_k grad log p*(x, tau_k), the gradient of L_K, unbiased
        wake q:   sum_k w~_k grad log q(tau_k | x), for -KL(p(tau | x) || q), with a bias of order 1/K
        sleep q:  grad log q(tau | x) for a dream (x, tau) ~ p, unbiased for -E_p(x) KL(p(tau | x) || q)

    Neither of q's updates is the gradient of L_K, and there is no single objective: in L_K the term
    that wake q climbs stands with the opposite sign. With one particle wake q is zero on average.

    Args:
        num_particles: particles K per datum.
        wake_q: weight of q's update on data.
        sleep_q: weight of q's update on dreams, one per datum; 0.0 makes none.
        backward: which particles are sent back through p: all, or one per datum, resampled by its weight, which is
            faster the more there are and adds a little noise.

    Source: Bornschein and Bengio, "Reweighted wake-sleep" (2015), https://arxiv.org/abs/1406.2751
    """

    needs: ClassVar[str] = "any q that can be sampled and scored; a p that can be sampled, for sleep"

    num_particles: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    wake_q: float = attrs.field(default=0.5, validator=attrs.validators.ge(0.0))
    sleep_q: float = attrs.field(default=0.5, validator=attrs.validators.ge(0.0))
    backward: Backward = "all"

    @property
    def unbiased(self) -> frozenset[str]:
        return frozenset({"generator", "prior"})

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        particles = joint.particles(x, self.num_particles, backward=self.backward)
        log_w = particles.log_weights.detach()  # [K, B]
        ascent = reweighted(log_w, particles.log_p + self.wake_q * particles.log_q)  # [B]
        if self.sleep_q > 0:
            dream, tau = joint.p.dream(len(x))  # [B, *X], [B, *Z]
            ascent = ascent + self.sleep_q * joint.q(dream).log_prob(tau)
        return Estimate(-ascent, log_mean_exp(log_w), log_w, side="lower")

    def check(self, joint: JointBound, x: Tensor) -> None:
        if self.sleep_q == 0 and (self.wake_q == 0 or self.num_particles == 1):
            raise UsageError(
                f"rws with num_particles {self.num_particles}, wake_q {self.wake_q} and sleep_q 0.0 does not teach q "
                "anything; raise sleep_q, or wake_q with at least 2 particles"
            )
        if self.backward == "resampled":
            joint.particles(x, self.num_particles, backward=self.backward)


@hookimpl
def register_estimators(register):
    register("rws", RWS)
