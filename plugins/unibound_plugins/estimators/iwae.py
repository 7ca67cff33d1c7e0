"""IWAE: the K-particle bound with reparameterized gradients."""

from typing import ClassVar, Literal

import attrs
from torch import Tensor

from unibound import Backward, Estimate, Estimator, JointBound, UsageError, hookimpl
from unibound.weights import log_mean_exp, normalized

Gradient = Literal["standard", "stl", "dreg"]


@attrs.frozen
class IWAE(Estimator):
    """Multi-sample bound, differentiated through the draws.

        L_K(x) = E log (1/K) sum_k w_k <= log p*(x),   w_k = p*(x, tau_k) / q(tau_k | x)

    The generator and the prior get sum_k w~_k grad log p*(x, tau_k), with w~ the normalized weights. The
    total derivative that q gets by default includes the score, whose noise drowns the signal as K grows.
    `stl` leaves the score out, which for K >= 2 is biased for q; `dreg` leaves it out and weighs each path
    by w~_k^2 instead of w~_k, which is unbiased.

    Seen as one draw, resampled from the K by its weight, L_K is a lower bound of the ELBO of the
    posterior q_p^K of that draw: see `unibound.weights.resampled`.

    Args:
        num_particles: particles K per datum.
        gradient: of q: standard (the total derivative), stl (sticking the landing) or dreg (doubly
            reparameterized).
        backward: which particles are sent back through p and q: all, or one per datum, resampled by its weight, which
            is faster the more there are and adds a little noise.

    Source: Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders" (2016),
    https://arxiv.org/abs/1509.00519; Roeder, Wu and Duvenaud, "Sticking the landing" (2017),
    https://arxiv.org/abs/1703.09194; Tucker, Lawson, Gu and Maddison, "Doubly reparameterized gradient
    estimators for Monte Carlo objectives" (2019), https://arxiv.org/abs/1810.04152
    """

    needs: ClassVar[str] = "a q with reparameterized samples; any p that is differentiable in tau"

    num_particles: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    gradient: Gradient = "standard"
    backward: Backward = "all"

    @property
    def unbiased(self) -> frozenset[str]:
        biased = self.gradient == "stl" and self.num_particles > 1
        return frozenset({"generator", "prior"} if biased else {"q", "generator", "prior"})

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        path_only = self.gradient != "standard"
        particles = joint.particles(
            x, self.num_particles, reparameterized=True, path_only=path_only, backward=self.backward
        )
        log_w = particles.log_weights  # [K, B]
        bound = log_mean_exp(log_w)  # [B]
        if self.gradient == "dreg" and particles.tau.requires_grad:
            # On its way back to q alone, a path is weighed once more: p keeps w~, q gets w~^2.
            event_dims = particles.tau.dim() - log_w.dim()
            w_norm = normalized(log_w.detach()).view(*log_w.shape, *[1] * event_dims)  # [K, B, 1...]
            particles.tau.register_hook(lambda gradient: gradient * w_norm)
        return Estimate(-bound, bound.detach(), log_w.detach(), side="lower")

    def check(self, joint: JointBound, x: Tensor) -> None:
        posterior = joint.q(x)
        if not posterior.has_rsample:
            raise UsageError(
                f"iwae needs reparameterized samples, but q(tau | x) is {type(posterior).__name__}; "
                "use vimco, which has the same bound, or a prior over reals"
            )
        if self.backward == "resampled":
            joint.particles(x, self.num_particles, reparameterized=True, backward=self.backward)


@hookimpl
def register_estimators(register):
    register("iwae", IWAE)
