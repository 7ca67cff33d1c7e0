"""What a bound is made of: nats that latents carry, and what data cost once these are known."""

import attrs
import torch

from unibound.data.rows import Data
from unibound.joint import JointBound

IDLE = 0.1
"""Nats below which latents carry nothing that p would miss."""
LIMIT, DRAWS = 500, 20
"""Data looked at, and latents per datum."""


@attrs.frozen
class Carried:
    """Means over data and over tau ~ q(tau | x), in nats; datum and latents add up to minus the ELBO.

    Args:
        datum: -log p(x | tau), the error of reconstruction.
        layers: what each layer adds to the bound, the lowest first: minus what it carries. For a layer between others
            it is no divergence, and may be above zero.
    """

    datum: float
    layers: tuple[float, ...]

    @property
    def latents(self) -> float:
        """KL(q(tau | x) || p(tau)), of all layers together."""
        return -sum(self.layers)


def carried(joint: JointBound, x: Data, log_z: float) -> Carried | None:
    """Look at data x [N, *X]; None where p does not tell p(x | tau) from p(tau), or one layer has a q that is fixed.

    Where q is fixed the latents carry what was put there, which may be the datum itself.
    """
    terms = []
    for batch in x.split(50):
        tau = joint.particles(batch, DRAWS, whole=False).tau
        terms.append(joint.log_weight_terms(batch, tau).double().mean(1))  # [L + 1, B]
    datum, *layers = torch.cat(terms, 1).mean(1).tolist()
    if not layers or (len(layers) == 1 and not any(True for _ in joint.q.parameters())):
        return None
    layers[-1] -= log_z
    return Carried(-datum, tuple(layers))


def told(latents: float, datum: float) -> str:
    """Both numbers in words, and what it means if there is nothing in the latents."""
    words = f"{latents:.2f} nats in the latents, {datum:.2f} in data given these"
    if latents >= IDLE:
        return words
    return (
        f"{words}: p does without its latents; a weaker p(x | tau), or a first stage of sgvb with a kl_weight below 1, "
        "may make it need them"
    )
