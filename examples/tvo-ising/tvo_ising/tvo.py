"""The thermodynamic variational objective, for latents that cannot be reparameterized."""

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from unibound import Estimate, Estimator, JointBound, Side, hookimpl


def staircase(log_w: Tensor, num_steps: int) -> Tensor:
    """The sum of rectangles under the slope of beta -> log (1/K) sum_k w_k^beta: [..., K, B] to [..., B] nats."""
    total = torch.zeros_like(log_w[..., 0, :])
    for step in range(num_steps):
        total = total + ((step / num_steps * log_w).softmax(-2) * log_w).sum(-2)
    return total / num_steps


@attrs.frozen
class TVO(Estimator):
    """Bounds between the ELBO and the K-particle bound, by integrating between q and p.

        T(x) = E (1/S) sum_{s < S} sum_k w~_k(s / S) log w_k <= L_K(x) <= log p*(x),   w~_k(b) = w_k^b / sum_j w_j^b

    The slope of log (1/K) sum_k w_k^b rises with b, so that rectangles that begin at 0 stay below its integral,
    which is the K-particle bound. One step gives the ELBO, many come near L_K: a larger S trades even weights for
    tightness. Each particle is credited with what it adds, its log-weight replaced by the mean of the others'; the
    gradient is unbiased.

    It is not the K-particle bound of its particles, so it reports no log-weights.

    Args:
        num_particles: particles K per datum, at least 2.
        num_steps: rectangles S, from q's end of the path.

    Source: Masrani, Le and Wood, "The thermodynamic variational objective" (2019), https://arxiv.org/abs/1907.00031,
    who estimate the same gradient by covariances
    """

    needs: ClassVar[str] = "any q that can be sampled and scored; any p"

    num_particles: int = attrs.field(default=10, validator=attrs.validators.ge(2))
    num_steps: int = attrs.field(default=5, validator=attrs.validators.ge(1))

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        particles = joint.particles(x, self.num_particles)
        log_w = particles.log_weights  # [K, B]
        bound = staircase(log_w, self.num_steps)  # [B]
        others = (log_w.sum(0) - log_w) / (len(log_w) - 1)  # [K, B]
        own = torch.eye(len(log_w), dtype=torch.bool, device=x.device).unsqueeze(2)  # [K, K, 1]
        without = staircase(torch.where(own, others.unsqueeze(1), log_w), self.num_steps)  # [K, B]
        signal = (bound - without).detach()
        return Estimate(-((signal * particles.log_q).sum(0) + bound), bound.detach(), None, Side.LOWER)


@hookimpl
def register_estimators(register):
    register("tvo", TVO)
