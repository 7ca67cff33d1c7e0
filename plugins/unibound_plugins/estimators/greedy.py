"""Greedy training of a deep net: one layer at a time, as a restricted Boltzmann machine of what lies below."""

from typing import ClassVar

import attrs
import torch
from attrs.validators import ge
from torch import Tensor
from torch.nn.functional import softplus

from unibound import Estimate, Estimator, Generator, Inference, JointBound, Layered, Upward, UsageError, hookimpl
from unibound.distributions import Bits


@attrs.frozen
class Greedy(Estimator):
    """One layer of q and p as a restricted Boltzmann machine, by contrastive divergence on draws of q from below.

        surrogate = F(v_0) - F(v_k),   F(v) = -b'v - sum_j softplus(c_j + (W v)_j)

    with v_0 the datum, or q's draw of the layer below, and v_k where k Gibbs steps between the two take it. W is the
    weight of q's layer and, transposed, of p's: two parameters with one gradient, which stay the same as long as one
    optimizer steps both. The layers come in turn, each a stage; then the prior learns the codes of the top, by cd.
    After that, wake_sleep, rws or vimco train all of them, and the weights go apart.

    With q the posterior of the first machine, a new machine on top changes the bound by exactly what it gains over the
    old one on q's codes, and never below log p of the old one if it starts there. From the next layer on q is no
    posterior, and the bound may fall while log p rises; the validation NLL at the end of each stage tells. No bound is
    claimed here.

    Args:
        layer: which, from 1, the one above the datum.
        steps: Gibbs steps k.

    Source: Hinton, Osindero and Teh, "A fast learning algorithm for deep belief nets" (2006),
    https://www.cs.toronto.edu/~hinton/absps/fastnc.pdf
    """

    needs: ClassVar[str] = "layers of bits, affine in each other, with the weights of q those of p (sbn with tied)"

    layer: int = attrs.field(default=1, validator=ge(1))
    steps: int = attrs.field(default=1, validator=ge(1))

    @property
    def unbiased(self) -> frozenset[str]:
        return frozenset()

    @property
    def untrained(self) -> frozenset[str]:
        return frozenset({"prior"})

    @property
    def together(self) -> frozenset[str]:
        return frozenset({"q", "generator"})

    @property
    def persistent(self) -> bool:
        return False

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        *below, (up, down) = self._layers(joint)
        with torch.no_grad():
            for lower, _ in below:
                x = lower(x).sample()
            end = x
            for _ in range(self.steps):
                end = down(up(end).sample()).sample()
        return Estimate(_free_energy(up, down, x) - _free_energy(up, down, end), None, None, side="none")

    def _layers(self, joint: JointBound) -> list[tuple[Inference, Generator]]:
        """Those of q and p up to the one that is trained."""
        if not isinstance(joint.q, Upward) or not isinstance(joint.p, Layered):
            raise UsageError(
                "greedy trains a layer of a net of layers, and this is none; use model sbn with tied = true"
            )
        pairs = list(zip(joint.q.layers, joint.p.generators, strict=True))
        if self.layer > len(pairs):
            raise UsageError(f"greedy: layer {self.layer} of a net of {len(pairs)}; name one from 1 to {len(pairs)}")
        return [
            (up, down) for up, down in pairs[: self.layer] if isinstance(up, Inference) and isinstance(down, Generator)
        ]

    @torch.no_grad()
    def check(self, joint: JointBound, x: Tensor) -> None:
        *below, (up, down) = self._layers(joint)
        with torch.random.fork_rng():
            for lower, _ in below:
                x = lower(x).sample()
            made = up(x)
            if not isinstance(made, Bits) or not isinstance(below_made := down(made.sample()), Bits):
                raise UsageError(
                    "greedy trains layers of bits, and these are of other values; use units and data of bits"
                )
            v, h = torch.randn_like(below_made.logits), torch.randn_like(made.logits)
        there = ((up(v).logits - up(torch.zeros_like(v)).logits) * h).sum(1)  # [B], of any h and v
        back = ((down(h).logits - down(torch.zeros_like(h)).logits) * v).flatten(1).sum(1)
        if not torch.allclose(there, back, rtol=1e-3, atol=1e-3):
            raise UsageError(
                f"greedy trains one weight in q and p, but layer {self.layer} has two that differ; use model sbn with "
                "tied = true, and greedy stages before all others"
            )


def _free_energy(up: Inference, down: Generator, v: Tensor) -> Tensor:
    """F(v) [B] by its gradient: that in W reaches the weight of q by the one term, and that of p by the other."""
    hidden, visible = up(v), None
    assert isinstance(hidden, Bits)
    visible = down(hidden.mean.detach())
    assert isinstance(visible, Bits)
    return -(v * visible.logits).flatten(1).sum(1) - softplus(hidden.logits).sum(1)


@hookimpl
def register_estimators(register):
    register("greedy", Greedy)
