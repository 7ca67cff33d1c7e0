"""Contrastive RWS: reweighted wake-sleep whose dreams come from the prior's persistent chain."""

from typing import ClassVar

import attrs
from torch import Tensor

from unibound import Backward, Estimate, Estimator, JointBound, UsageError, hookimpl
from unibound.weights import log_mean_exp, reweighted


@attrs.frozen
class ContrastiveRWS(Estimator):
    """Reweighted wake-sleep for a prior that can only be sampled by a chain.

        wake p:   sum_k w~_k grad log p*(x, tau_k); a chain's states stand in for grad log Z
        wake q:   sum_k w~_k grad log q(tau_k | x)
        sleep q:  grad log q(tau | x),  tau a state of the same chain,  x ~ p(x | tau)

    The chain moves a few steps per training step instead of being run to equilibrium for each dream. Where
    it is stationary this is `rws` exactly; where it lags, sleep and the prior are biased by its lag. As in
    rws, neither of q's updates is the gradient of the bound. x is a draw and not the mean of p(x | tau),
    of which q would otherwise learn an answer to questions no datum asks. A prior without chains is sampled.

    Args:
        num_particles: particles K per datum.
        wake_q: weight of q's update on data.
        sleep_q: weight of q's update on dreams, one per datum.
        backward: which particles are sent back through p: all, or one per datum, resampled by its weight, which is
            faster the more there are and adds a little noise.

    Source: Hu and Salakhutdinov, "Learning deep generative models with discrete latent variables" (2018),
    https://openreview.net/forum?id=SkZ-BnyCW
    """

    needs: ClassVar[str] = "any q that can be sampled and scored; any p, meant for a prior with persistent chains"

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
        wake = reweighted(log_w, particles.log_p + self.wake_q * particles.log_q)  # [B]
        dream, tau = joint.p.dream(len(x), persistent=True)  # [B, *X], [B, *Z]
        sleep = joint.q(dream).log_prob(tau)  # [B]
        return Estimate(-(wake + self.sleep_q * sleep), log_mean_exp(log_w), log_w, side="lower")

    def check(self, joint: JointBound, x: Tensor) -> None:
        if self.sleep_q == 0:
            raise UsageError("contrastive_rws with sleep_q 0.0 has no use for the chain's dreams; raise it, or use rws")
        if self.backward == "resampled":
            joint.particles(x, self.num_particles, backward=self.backward)


@hookimpl
def register_estimators(register):
    register("contrastive_rws", ContrastiveRWS)
