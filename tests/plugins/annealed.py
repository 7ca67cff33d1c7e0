"""Priors small enough that every path of an annealing chain can be listed, and what must come of them."""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import softplus
from unibound_plugins.priors.rbm import RBM

from unibound.partition import PartitionEstimator, annealing, enumeration
from unibound.testing.listing import all_bits
from unibound.testing.priors import Table
from unibound.weights import log_mean_exp


def random_rbm(seed: int, num_visible: int = 5, num_hidden: int = 4, scale: float = 1.0) -> RBM:
    torch.manual_seed(seed)
    shapes = ((num_visible, num_hidden), (num_visible,), (num_hidden,))
    return RBM.from_weights(*(scale * torch.randn(shape) for shape in shapes))


def tiny_rbm() -> RBM:
    """Two visible and three hidden units in float64, annealed from rates that are off the mark."""
    rbm = random_rbm(7, 2, 3, scale=1.5).double()
    rbm.base_bias.copy_(torch.tensor([-0.6, 0.9]))
    return rbm


def transition(rbm: RBM, beta: float) -> Tensor:
    """Exact matrix [S, S] of one Gibbs step at a temperature, hidden states listed."""
    num_visible, num_hidden = rbm.weight.shape
    visible, hidden = all_bits((num_visible,)), all_bits((num_hidden,))  # [S, V], [G, H]
    up = beta * (visible @ rbm.weight + rbm.hidden_bias).detach()  # [S, H]
    down = beta * (hidden @ rbm.weight.T + rbm.visible_bias).detach() + (1 - beta) * rbm.base_bias  # [G, V]
    log_up = up @ hidden.T - softplus(up).sum(1, keepdim=True)  # [S, G]
    log_down = down @ visible.T - softplus(down).sum(1, keepdim=True)  # [G, S]
    return log_up.exp() @ log_down.exp()


def p_ann(rbm: RBM, betas: list[float]) -> Tensor:
    """The distribution in which annealed chains end, exactly [S]."""
    p = (-rbm.free_energy(all_bits(tuple(rbm.event_shape)), 0.0)).detach().softmax(0)
    for beta in betas[1:]:
        p = p @ transition(rbm, beta)
    return p


class Worked:
    """Every forward path of a tiny RBM over four temperatures, with its probability and its weight."""

    def __init__(self) -> None:
        self.prior = tiny_rbm()
        self.betas = torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64)
        states, steps = all_bits((2,)), len(self.betas) - 1
        index = torch.cartesian_prod(*[torch.arange(4)] * (steps + 1)).T  # [T + 1, P]
        self.path, self.end = states[index], index[-1]
        self.log_p0 = (-self.prior.free_energy(states, 0.0)).detach().log_softmax(0)
        moves = [transition(self.prior, beta) for beta in self.betas[1:].tolist()]
        pairs = list(pairwise(index))
        self.probability = self.log_p0[index[0]].exp()
        for matrix, (i, j) in zip(moves, pairs, strict=True):
            self.probability = self.probability * matrix[i, j]
        self.backward = torch.ones_like(self.probability)  # of the rest of the path, given its end
        for matrix, (i, j) in zip(moves, pairs, strict=True):
            self.backward = self.backward * matrix[j, i]
        self.log_w = annealing.path_log_weight(self.prior, self.path, self.betas)
        self.log_f = -self.prior.free_energy(states).detach()
        self.log_z = self.log_f.logsumexp(0).item()
        self.log_ratio = self.log_z - self.prior.base_log_z()


class Scripted(Table):
    """A table whose transitions are read from a list."""

    def play(self, path: Tensor) -> None:
        self.script = list(path)

    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        return self.script.pop(0)


def expected_log_mean(probability: Tensor, log_w: Tensor, chains: int) -> float:
    """Exact E[log mean w] over independent chains, paths of equal weight taken together."""
    values, which = log_w.round(decimals=12).unique(return_inverse=True)
    mass = torch.zeros_like(values).index_add(0, which, probability)
    index = torch.cartesian_prod(*[torch.arange(len(values))] * chains).reshape(-1, chains).T  # [M, N]
    return (mass[index].prod(0) * log_mean_exp(values[index])).sum().item()


def missed(estimator: PartitionEstimator, count: int) -> int:
    """How often the stated interval misses the exact log Z, and nothing is said against it."""
    misses = 0
    for seed in range(count):
        torch.manual_seed(seed)
        sizes = [int(torch.randint(low, high, ())) for low, high in ((3, 13), (2, 9))]
        rbm = random_rbm(seed, *sizes, scale=0.1 + 2 * torch.rand(()).item())
        log_z = estimator.fit(rbm).log_z
        assert log_z is not None
        low, high = log_z.interval.low, log_z.interval.high
        misses += log_z.trustworthy and not low <= enumeration.log_sum(rbm) <= high
    return misses
