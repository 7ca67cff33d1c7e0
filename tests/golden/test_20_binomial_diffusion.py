"""The diffusion of bits: the whole trajectory listed, its divergences one by one, and one term at a time."""

import math

import pytest
import torch
from golden import Item, items, tensor
from layers import Lower
from listing import bits, expectation
from torch import Tensor, nn
from torch.distributions import Distribution

from unibound import JointBound, Layered, Prior, Upward
from unibound.distributions import Bits
from unibound.sequences.noise import Binomial
from unibound.sequences.trajectory import Noisier, Reverse, StepGeneration, StepInference

Bernoulli = pytest.importorskip("unibound_plugins.priors.bernoulli").Bernoulli


class Layers(Reverse):
    """A linear layer of logits for each step."""

    def __init__(self, layers: list[Lower]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def first(self, noisy: Tensor, t: Tensor) -> Distribution:
        return self.layers[0](noisy)

    def later(self, noisy: Tensor, t: Tensor, first: Distribution) -> Distribution:
        every = torch.stack([layer(noisy).logits for layer in self.layers])  # [T, ..., D]
        return Bits(every.gather(0, (t - 1).unsqueeze(0).unsqueeze(-1).expand(1, *every.shape[1:]))[0])


def layers(item: Item) -> list[Lower]:
    """Of logits (2 x - 1) W + b, as layers that see x."""
    pairs = zip(item.input["reverse_W"], item.input["reverse_b"], strict=True)
    weights = [(tensor(weight), tensor(bias)) for weight, bias in pairs]
    return [Lower(2 * weight.T, bias - weight.sum(0)) for weight, bias in weights]


def uniform(size: int) -> Prior:
    return Bernoulli((size,)).double()  # its rates are one half to begin with


@pytest.mark.parametrize("item", items("20_binomial_diffusion"))
def test_bounds_and_terms(item: Item) -> None:
    noise, log_data = Binomial(tensor(item.input["betas"])), tensor(item.input["data_prob"]).log()
    steps, size = len(noise), int(math.log2(len(log_data)))
    xs, data = bits(size), log_data.exp()  # [N, D], [N]
    q = Upward([Noisier(noise, t, 1) for t in range(1, steps + 1)], [size] * steps)
    whole = JointBound(q, Layered(uniform(size), layers(item), [size] * steps))
    divergence = whole.divergence(xs, log_data, bits(size * steps))
    each = [whole.divergence(x.unsqueeze(0), tensor([0.0]), bits(size * steps)) for x in xs]

    p = StepGeneration(uniform(size), Layers(layers(item)), noise, (size,))
    noisy = bits(size).unsqueeze(1).expand(-1, len(xs), -1)  # [S, N, D]
    by_step, entropies = [], []
    for step in range(1, steps + 1):
        t = torch.full(noisy.shape[:-1], step)
        log_q = noise.at(xs, t[0]).log_prob(noisy)
        by_step.append(expectation(log_q, p.term(xs, noisy, t)))
        entropies.append(-expectation(log_q, log_q))
    end = size * math.log(2) - entropies[-1]  # [N]
    later = [data @ term for term in by_step[1:]]
    one = torch.tensor([[0.0], [1.0]]).double()
    back = [[noise.back(one, x, torch.tensor(step)).mean.flatten() for x in one] for step in range(2, steps + 1)]
    item.check(
        bound=divergence.bound,
        kl=divergence.kl,
        nll=divergence.nll,
        entropy_data=-(data @ log_data),
        px=[math.exp(-one.nll) for one in each],
        bound_by_state=[one.bound for one in each],
        L_T=data @ end,
        L_mid=later,
        L_0=data @ by_step[0],
        q_prev_one_given_x0_xt=[torch.stack(rows) for rows in back],
        bound_entropy_form=sum(later) + data @ (end + entropies[0]),
    )

    # One step at a time, every step, x_t and x_T listed.
    terms = JointBound(StepInference(noise, 1), p)
    t, here, last = torch.cartesian_prod(torch.arange(1, steps + 1), *[torch.arange(2**size)] * 2).T
    tau = torch.cat([t.unsqueeze(1).double(), bits(size)[here], bits(size)[last]], 1).unsqueeze(1)
    log_q = noise.at(xs, t.unsqueeze(1)).log_prob(bits(size)[here].unsqueeze(1)) - math.log(steps)
    log_q = log_q + noise.at(xs, torch.full((1, len(xs)), steps)).log_prob(bits(size)[last].unsqueeze(1))
    log_w = terms.p.log_joint(xs, tau.expand(-1, len(xs), -1))
    torch.testing.assert_close(-expectation(log_q, log_w), tensor([one.bound for one in each]))
