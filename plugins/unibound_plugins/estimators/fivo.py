"""FIVO: the bound of particles that are resampled between the steps of a recurrence."""

from typing import ClassVar

import attrs
from attrs.validators import ge, le
from torch import Tensor

from unibound import Estimate, Estimator, JointBound, UsageError, hookimpl
from unibound.sequences.filtering import filtering_bound
from unibound.sequences.recurrent import RecurrentGeneration, RecurrentInference


def recurrent(joint: JointBound) -> tuple[RecurrentInference, RecurrentGeneration]:
    """q and p that share a recurrence; UsageError if they do not."""
    if not (isinstance(joint.q, RecurrentInference) and isinstance(joint.p, RecurrentGeneration)):
        raise UsageError(
            f"fivo resamples between the steps of a recurrence that q and p share, and {type(joint.q).__name__} and "
            f"{type(joint.p).__name__} have none; use iwae or vimco, or model vrnn"
        )
    return joint.q, joint.p


@attrs.frozen
class FIVO(Estimator):
    """Filtering variational objective: a particle filter's estimate of log p(x), differentiated through its draws.

        E sum_t log (1/K) sum_k w_t^k <= log p(x),   w_t = p(x_t, z_t | x_<t, z_<t) / q(z_t | x, z_<t)

    Between steps particles are resampled by their weights, so that those which explain what was seen go on. The bound
    is often tighter than the K-particle bound of whole sequences, but it need not be: where q already looks ahead,
    resampling by what was seen so far throws away what would have fitted later. Nor must it grow with K.

    Gradients leave out the score of the resampling, as the paper does, whose noise drowns what it would correct: all
    groups are biased. With one particle, or a threshold of 0, nothing is resampled; the bound is then the ELBO, or
    that of whole sequences, and its gradient exact.

    Args:
        num_particles: particles K per datum.
        threshold: a datum's particles are resampled where their effective sample size is below this share of K: 1
            is after every step, 0 never.

    Source: Maddison et al., "Filtering variational objectives" (2017), https://arxiv.org/abs/1705.09279; the threshold,
    Liu and Chen, "Blind deconvolution via sequential imputations" (1995), https://doi.org/10.2307/2291068
    """

    needs: ClassVar[str] = "a recurrence that q and p share, as of vrnn, and reparameterized samples"

    num_particles: int = attrs.field(default=10, validator=ge(1))
    threshold: float = attrs.field(default=1.0, validator=[ge(0.0), le(1.0)])

    @property
    def unbiased(self) -> frozenset[str]:
        resampled = self.num_particles > 1 and self.threshold > 0
        return frozenset() if resampled else super().unbiased

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        q, p = recurrent(joint)
        options = {"threshold": self.threshold, "reparameterized": True}
        bound = filtering_bound(q, p, x, self.num_particles, joint.choose, **options)  # [B]
        return Estimate(-bound, bound.detach(), log_weights=None, side="lower")

    def check(self, joint: JointBound, x: Tensor) -> None:
        q, _ = recurrent(joint)
        if not q(x).has_rsample:
            raise UsageError(
                "fivo needs reparameterized samples, and latents of q(tau | x) have none; use vimco, or a prior over "
                "reals"
            )


@hookimpl
def register_estimators(register):
    register("fivo", FIVO)
