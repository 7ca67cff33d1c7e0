"""SGVB: the evidence lower bound with reparameterized gradients, as in a variational autoencoder."""

from typing import ClassVar

import attrs
from torch import Tensor

from unibound import Estimate, Estimator, JointBound, UsageError, hookimpl


@attrs.frozen
class SGVB(Estimator):
    """Evidence lower bound, differentiated through the draw.

        ELBO(x) = E_q[log p*(x, tau) - log q(tau | x)] = log p*(x) - KL(q(tau | x) || p(tau | x))

    Args:
        num_particles: draws per datum, averaged; they lower the variance and leave the bound as it is.

    Source: Kingma and Welling, "Auto-encoding variational Bayes" (2014), https://arxiv.org/abs/1312.6114
    """

    needs: ClassVar[str] = "a q with reparameterized samples; any p that is differentiable in tau"

    num_particles: int = attrs.field(default=1, validator=attrs.validators.ge(1))

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        log_w = joint.particles(x, self.num_particles, reparameterized=True).log_weights  # [K, B]
        elbo = log_w.mean(0)  # [B]
        return Estimate(-elbo, elbo.detach(), log_w.detach(), side="lower")

    def check(self, joint: JointBound, x: Tensor) -> None:
        posterior = joint.q(x)
        if not posterior.has_rsample:
            raise UsageError(
                f"sgvb needs reparameterized samples, but q(tau | x) is {type(posterior).__name__}; "
                "use vimco, or a prior over reals"
            )


@hookimpl
def register_estimators(register):
    register("sgvb", SGVB)
