"""A diffusion of bits whose terms are drawn one at a time: their mean is a bound, and K of them make none.

Its trajectory as a whole is layers of bits, so that log p and the bound are those of the library's own parts.
"""

import math
from typing import ClassVar

import pytest
import torch
from golden import Item, items, tensor
from layers import Lower
from listing import bits, bound, expectation
from nets import layered
from torch import Tensor

from unibound import Generation, Generator, Inference, JointBound, UsageError
from unibound.distributions import Bits
from unibound.draws import Drawn

NVIL = pytest.importorskip("unibound_plugins.estimators.nvil").NVIL
RWS = pytest.importorskip("unibound_plugins.estimators.rws").RWS
VIMCO = pytest.importorskip("unibound_plugins.estimators.vimco").VIMCO


def sure(share: Tensor) -> Tensor:
    """Logit of a bit that is kept with this probability, and a fair coin otherwise, to be what it was."""
    return ((1 + share) / (1 - share)).log()


class Step(Drawn):
    """A step t in 1..T and bits x_t given x_0, [..., 1 + D]; it stands for one of the terms of a trajectory."""

    partial: ClassVar[bool] = True

    def __init__(self, x: Tensor, kept: Tensor) -> None:
        self.x, self.kept = x, kept
        super().__init__(x.shape[:-1], torch.Size([1 + x.shape[-1]]), validate_args=False)

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        t = torch.randint(1, len(self.kept) + 1, (count, *self.batch_shape))
        noisy = Bits((2 * self.x - 1) * sure(self.kept[t - 1]).unsqueeze(-1)).sample()
        return torch.cat([t.unsqueeze(-1).to(noisy), noisy], -1), noisy.new_zeros(t.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return value.new_zeros(value.shape[:-1])


class OneStep(Inference):
    """q of the diffusion, one step at a time."""

    def __init__(self, betas: Tensor) -> None:
        super().__init__()
        self.kept = (1 - betas).cumprod(0)

    def forward(self, x: Tensor) -> Step:
        return Step(x, self.kept)


class OneTerm(Generation):
    """p of the diffusion, -(L_T + T term_t(x_t)), whose mean over steps is the bound."""

    def __init__(self, betas: Tensor, reverse: list[Generator]) -> None:
        super().__init__()
        self.betas, self.kept, self.reverse = betas, (1 - betas).cumprod(0), reverse

    def log_joint(self, x: Tensor, tau: Tensor) -> Tensor:
        t, noisy = tau[..., 0].long(), tau[..., 1:]
        terms = [self.term(x, noisy, step) for step in range(1, len(self.betas) + 1)]
        chosen = torch.stack(terms, -1).gather(-1, t.unsqueeze(-1) - 1).squeeze(-1)
        last = Bits((2 * x - 1) * sure(self.kept[-1]))
        return last.entropy() - x.shape[-1] * math.log(2) - len(self.betas) * chosen

    def term(self, x: Tensor, noisy: Tensor, step: int) -> Tensor:
        """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), and at the first step -log p(x_0 | x_1)."""
        p = self.reverse[step - 1](noisy)
        if step == 1:
            return -p.log_prob(x)
        q = Bits((2 * x - 1) * sure(self.kept[step - 2]) + (2 * noisy - 1) * sure(1 - self.betas[step - 1]))
        before = bits(x.shape[-1]).view(-1, *[1] * len(q.batch_shape), x.shape[-1])
        return expectation(q.log_prob(before), q.log_prob(before) - p.log_prob(before))

    def dream(self, count: int, *, persistent: bool = False) -> tuple[Tensor, Tensor]:
        raise UsageError("one term of a diffusion has no dreams")


def reverse_layer(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Of logits (2 x - 1) W + b: weight [out, in] and bias of the layer that sees x."""
    return 2 * weight.T, bias - weight.sum(0)


@pytest.mark.parametrize("item", items("36_partial_terms"))
def test_terms_one_at_a_time(item: Item) -> None:
    betas, x = tensor(item.input["betas"]), tensor([item.input["x"]])
    size, steps = x.shape[1], len(betas)
    reverse = [
        reverse_layer(tensor(weight), tensor(bias))
        for weight, bias in zip(item.input["reverse_W"], item.input["reverse_b"], strict=True)
    ]
    forward = [reverse_layer(sure(1 - beta) * torch.eye(size), torch.zeros(size)) for beta in betas]
    p = {"W": [weight for weight, _ in reverse], "b": [bias for _, bias in reverse], "top_logits": [0.0] * size}
    q = {"R": [weight for weight, _ in forward], "c": [bias for _, bias in forward]}
    divergence = layered(p, q, [size] * steps).divergence(x, tensor([0.0]), bits(size * steps))

    joint = JointBound(OneStep(betas), OneTerm(betas, [Lower(*layer) for layer in reverse]))
    noisy = bits(size)
    taus = torch.cat([torch.cat([torch.full_like(noisy[:, :1], t), noisy], 1) for t in range(1, steps + 1)])
    shares = joint.q(x).kept.repeat_interleave(len(noisy)).unsqueeze(1)
    log_q = Bits((2 * x - 1) * sure(shares)).log_prob(taus[:, 1:]) - math.log(steps)  # [T 2^D]
    log_w = joint.p.log_joint(x, taus)
    limit = (log_q + log_w).logsumexp(0)
    by_k = item.expected["E_log_mean_exp_of_one_step_estimates"]
    item.check(
        log_p=-divergence.nll,
        elbo=-divergence.bound,
        E_log_mean_exp_of_one_step_estimates={
            k: limit if k == "infinity" else bound(log_q, log_w, int(k)) for k in by_k
        },
        exceeds_log_p_by=limit + divergence.nll,
    )
    joint.auxiliary = NVIL().auxiliary(joint, x).double()
    assert (NVIL()(joint, x).bound - log_w).abs().min() < 1e-9  # it averages
    for estimator in (VIMCO(num_particles=2), RWS(num_particles=2)):
        with pytest.raises(UsageError, match="one term of tau at a time"):
            estimator(joint, x)
