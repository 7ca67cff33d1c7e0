"""An autoencoder with softly binarized codes, from which to start a model with bits as latents."""

from typing import ClassVar

import attrs
import torch
from torch import Tensor

from unibound import Estimate, Estimator, JointBound, UsageError, hookimpl
from unibound.distributions import Bits


def soft_bits(logits: Tensor, uniform: Tensor) -> Tensor:
    """Codes between 0 and 1 through which gradients flow: clip(logit + u, 0, 1), with u ~ U(0, 1).

    Their mean is g(l + 1) - g(l), where g(t) = 0, t^2 / 2, t - 1/2 for t below, in and above [0, 1]: a
    sigmoid centered at 0, as the bits that will take their place need it. The paper prints the noise as
    U(-1/2, 1/2), which centers it at 1/2; the shift by 1/2 is ours.

    Source: Hu and Salakhutdinov, "Learning deep generative models with discrete latent variables" (2018), Eq. 3.
    """
    return (logits + uniform).clamp(0, 1)


@attrs.frozen
class Autoencoder(Estimator):
    """Reconstruction from codes that are nearly bits; a stage before those that train a bound.

        surrogate = -log p(x | m * tau),  tau = clip(logit + u, 0, 1),  u ~ U(0, 1),  m ~ Bernoulli(1 - mask)

    It trains q and the generator together, by backpropagation through the code, and leaves the prior as
    it is. No bound is claimed: nothing holds the codes to the prior, and soft bits are not its latents.

    Args:
        mask: fraction of soft bits set to 0 in each draw, which spreads information over the code.

    Source: Hu and Salakhutdinov, "Learning deep generative models with discrete latent variables" (2018).
    """

    needs: ClassVar[str] = "a q over bits; a generator that accepts values between"

    mask: float = attrs.field(default=0.1, validator=[attrs.validators.ge(0.0), attrs.validators.lt(1.0)])

    @property
    def untrained(self) -> frozenset[str]:
        return frozenset({"prior"})

    @property
    def unbiased(self) -> frozenset[str]:
        return frozenset()

    @property
    def persistent(self) -> bool:
        return False

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        logits = _logits(joint, x)  # [B, *Z]
        tau = soft_bits(logits, torch.rand_like(logits))
        if self.mask > 0:
            tau = tau * (torch.rand_like(logits) >= self.mask)
        return Estimate(-joint.p.conditional(tau).log_prob(x), bound=None, log_weights=None, side="none")

    def check(self, joint: JointBound, x: Tensor) -> None:
        _logits(joint, x)


def _logits(joint: JointBound, x: Tensor) -> Tensor:
    posterior = joint.q(x)
    if not isinstance(posterior, Bits):
        raise UsageError(
            f"autoencoder softens bits, but q(tau | x) is {type(posterior).__name__}; use a prior over bits, or sgvb"
        )
    return posterior.logits


@hookimpl
def register_estimators(register):
    register("autoencoder", Autoencoder)
