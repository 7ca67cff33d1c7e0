"""The bound of Saul, Jaakkola and Jordan: what mean field can ascend in a sigmoid belief net of any depth.

Shapes: B data, Z latents of all layers, N units below a layer, H units of it. Everything is in nats.
"""

import torch
from torch import Tensor

from unibound.distributions import Bits
from unibound.errors import UsageError
from unibound.generation import Generation, Layered
from unibound.networks import Generator

HALVINGS = 30  # of [0, 1], in which each xi is looked for
SLACK = 1e-4


class SigmoidBound:
    """A lower bound of E_q[log p(x, tau)] for independent bits tau under layers of sigmoid units.

        log(1 + e^a) <= xi a + log(e^(-xi a) + e^((1 - xi) a))

    for every xi in [0, 1], and the logarithm of the mean is above the mean of the logarithm; so for a unit with logit
    a = b + W tau below independent bits, whose means of e^(t a) are products,

        E log p(unit | tau) >= E[unit] E[a] - xi E[a] - log(E e^(-xi a) + E e^((1 - xi) a))

    with the best xi for each unit and datum. It is convex in each mean by itself, so that `settle` never lowers it.
    Give it to `Settled` as its `value`. Layers must be of bits whose logits are affine in the layer above.

    Source: Saul, Jaakkola and Jordan, "Mean field theory for sigmoid belief networks" (1996),
    https://arxiv.org/abs/cs/9603102
    """

    def __call__(self, p: Generation, x: Tensor, mean: Tensor) -> Tensor:
        """The bound at means [..., Z], with the best xi: [...] nats."""
        return self.at(p, x, mean, None)

    def at(self, p: Generation, x: Tensor, mean: Tensor, xi: Tensor | None) -> Tensor:
        """The bound at means [..., Z] and one xi for each unit [..., N_1 + ... + N_L], lowest first: [...] nats."""
        if not isinstance(p, Layered):
            raise UsageError(f"the bound for sigmoid nets is of layers above one another, not of {type(p).__name__}")
        pieces = mean.split(p.sizes, -1)
        above = (*pieces[:-1], p.prior.visible(pieces[-1]))
        total = p.prior.log_prob(pieces[-1])
        for generator, unit, piece in zip(p.generators, (x, *pieces[:-1]), above, strict=True):
            assert isinstance(generator, Generator)
            weight, bias, dims = _affine(generator, piece)
            own, xi = (None, None) if xi is None else (xi[..., : len(bias)], xi[..., len(bias) :])
            total = total + _layer(weight, bias, unit.flatten(-dims), piece, own)
        return total


def _layer(weight: Tensor, bias: Tensor, unit: Tensor, mean: Tensor, xi: Tensor | None) -> Tensor:
    logit = mean @ weight.mT + bias  # [..., N], E[a]
    if xi is None:
        xi = _best(weight.detach(), bias.detach(), mean.detach())
    return (unit * logit - _excess(weight, bias, mean, xi) - xi * logit).sum(-1)


def _excess(weight: Tensor, bias: Tensor, mean: Tensor, xi: Tensor) -> Tensor:
    """log(E e^(-xi a) + E e^((1 - xi) a)) of each unit [..., N]."""
    return torch.logaddexp(_cumulant(weight, bias, mean, -xi), _cumulant(weight, bias, mean, 1 - xi))


def _cumulant(weight: Tensor, bias: Tensor, mean: Tensor, t: Tensor) -> Tensor:
    """log E e^(t a) of each unit [..., N], for independent bits of given means [..., H]."""
    powers = t.unsqueeze(-1) * weight  # [..., N, H]
    return t * bias + torch.log1p(mean.unsqueeze(-2) * torch.expm1(powers)).sum(-1)


def _tilted(weight: Tensor, bias: Tensor, mean: Tensor, t: Tensor) -> Tensor:
    """E a e^(t a) / E e^(t a) of each unit [..., N], the slope of the cumulant."""
    powers = t.unsqueeze(-1) * weight
    return bias + (weight * (powers + mean.logit().unsqueeze(-2)).sigmoid()).sum(-1)


@torch.no_grad()
def _best(weight: Tensor, bias: Tensor, mean: Tensor) -> Tensor:
    """The xi of each unit at which the bound is tightest [..., N]: it is convex in xi, and lowest within [0, 1]."""
    logit = mean @ weight.mT + bias
    low, high = torch.zeros_like(logit), torch.ones_like(logit)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        left, right = -middle, 1 - middle
        share = (_cumulant(weight, bias, mean, right) - _cumulant(weight, bias, mean, left)).sigmoid()
        # The slope in xi: the mean of a less its means under the two tilted distributions, as either counts.
        rising = logit > torch.lerp(_tilted(weight, bias, mean, left), _tilted(weight, bias, mean, right), share)
        low, high = torch.where(rising, low, middle), torch.where(rising, middle, high)
    return (low + high) / 2


def _affine(generator: Generator, like: Tensor) -> tuple[Tensor, Tensor, int]:
    """Weight [N, H] and bias [N] of a layer whose logits are affine in what is above, and dims of its events."""
    size = like.shape[-1]
    states = torch.cat([torch.zeros(1, size), torch.eye(size), torch.linspace(-1, 2, size).unsqueeze(0)]).to(like)
    made = generator(states)
    if not isinstance(made, Bits):
        raise UsageError(f"the bound for sigmoid nets is of layers of bits, but one gives {type(made).__name__}")
    bias, *columns, probe = made.logits.flatten(1)
    weight = torch.stack(columns, 1) - bias.unsqueeze(1)
    if not torch.allclose(weight @ states[-1] + bias, probe, rtol=SLACK, atol=SLACK):
        raise UsageError(
            "the bound for sigmoid nets needs logits that are affine in the layer above; use a net whose layers are "
            "one linear map each"
        )
    return weight, bias, len(made.event_shape)
