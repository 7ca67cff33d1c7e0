"""Mean field: of bits one by one or all at once, of normals, and of a sigmoid belief net by a bound of its own."""

import math
from typing import Any

import pytest
import torch
from golden import Item, close, items, tensor
from layers import Lower
from listing import bits
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from unibound import Directed, EnergyPrior, Generator, Inference, JointBound, Layered
from unibound.distributions import Bits
from unibound.partition import enumeration
from unibound.settled import Settled, listed_value, settle
from unibound.sigmoid_bound import SigmoidBound
from unibound.support import boolean

Bernoulli = pytest.importorskip("unibound_plugins.priors.bernoulli").Bernoulli
Gaussian = pytest.importorskip("unibound_plugins.priors.gaussian").Gaussian
SWEEPS = 60  # after which a small sigmoid net has settled
OPTIMIZED = {"abs": 1e-6, "rel": 0.0}  # of what was found by an optimizer


class Pairs(EnergyPrior):
    """-F = tau'J tau / 2 + theta'tau over bits, J symmetric with nothing on its diagonal."""

    support = boolean

    def __init__(self, joined: Tensor, biases: Tensor) -> None:
        super().__init__(torch.zeros(1, len(biases)).double(), 1)
        self.joined, self.biases = joined, biases

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        return -beta * ((tau @ self.joined * tau).sum(-1) / 2 + tau @ self.biases)

    def base_sample(self, count: int) -> Tensor:
        return torch.rand(count, len(self.biases)).round().double()

    def base_log_z(self) -> float:
        return len(self.biases) * math.log(2)

    def fit_base(self, tau: Tensor) -> None:
        pass


def pairs(item: Item) -> dict[str, Any]:
    given = item.input
    energy = Pairs(tensor(given["J"]), tensor(given["theta"]))
    size, log_z = len(given["theta"]), enumeration.log_sum(energy)
    order = [[index] for index in given["order"]]

    def value(mean: Tensor) -> Tensor:
        return -energy.free_energy(mean)

    def after(sweeps: int, pieces: list[list[int]]) -> Tensor:
        start = torch.as_tensor(given["start"]).double().expand(1, size).logit()
        return settle(value, start, pieces, sweeps)

    def elbo(logits: Tensor) -> Tensor:
        return (value(logits.sigmoid()) + Bits(logits).entropy())[0]

    fixed = after(max(given["sweeps"]), order)
    marginals = (-energy.free_energy(bits(size)) - log_z).exp() @ bits(size)
    return {
        "log_Z": log_z,
        "elbo_after": [elbo(after(sweeps, order)) for sweeps in given["sweeps"]],
        "mu_after_1": after(1, order).sigmoid()[0],
        "mu_fixed": fixed.sigmoid()[0],
        "parallel_elbo_after_1_to_6": [elbo(after(sweeps, [[*range(size)]])) for sweeps in range(1, 7)],
        "kl": log_z - elbo(fixed),
        "exact_marginals": marginals,
    }


class Linear(Generator):
    """p(x | z): normal, its mean linear in z."""

    def __init__(self, weight: Any, bias: Any, scale: Any) -> None:
        super().__init__()
        self.weight, self.bias, self.scale = tensor(weight), tensor(bias), tensor(scale)

    def forward(self, tau: Tensor) -> Distribution:
        mean = tau @ self.weight.mT + self.bias
        return Independent(Normal(mean, self.scale.expand_as(mean)), 1)


def normals(item: Item) -> dict[str, Any]:
    given, x = item.input, tensor([item.input["x"]])
    generator = Linear(given["W"], given["mu"], given["sigma_x"])
    size = generator.weight.shape[1]
    p = Directed(Gaussian((size,)).double(), generator)

    def settled(sweeps: int) -> Distribution:
        return JointBound(Settled(size, over="reals", sweeps=sweeps), p).q(x)

    def elbo(sweeps: int) -> Tensor:
        q = settled(sweeps)
        # log p(x, tau) - log q(tau | x) is quadratic: its mean is that over two points on each axis.
        axes = math.sqrt(size) * torch.cat([torch.eye(size), -torch.eye(size)]).double().unsqueeze(1)
        tau = q.mean + q.stddev * axes
        return (p.log_joint(x, tau) - q.log_prob(tau)).mean()

    # The posterior is normal, its mean where mean field comes to rest.
    last = settled(max(given["sweeps"]))
    mean = last.mean
    bend = -torch.autograd.functional.hessian(lambda z: p.log_joint(x, z.unsqueeze(0)).sum(), mean[0])
    log_p = p.log_joint(x, mean)[0] + size / 2 * math.log(2 * math.pi) - bend.logdet() / 2
    return {
        "log_p": log_p,
        "elbo_after": [elbo(sweeps) for sweeps in given["sweeps"]],
        "mean_fixed": mean[0],
        "var_fixed": last.variance[0],
        "kl": log_p - elbo(max(given["sweeps"])),
    }


class Given(Inference):
    """q(tau | x): independent bits of given means, whatever x."""

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, x: Tensor) -> Distribution:
        return Bits(self.mean.logit().expand(*x.shape[:-1], -1))


def sigmoid_net(item: Item) -> dict[str, Any]:
    given, x = item.input, tensor([item.input["x"]])
    prior = Bernoulli((len(given["prior_logits"]),)).double()
    prior.load_state_dict({"logits": tensor(given["prior_logits"])})
    size = len(given["prior_logits"])
    p, bound = Layered(prior, [Lower(given["W"], given["b"])], [size]), SigmoidBound()
    mean, xi = tensor([given["mu"]]), tensor([given["xi"]])

    def divergence(q: Inference) -> Any:
        return JointBound(q, p).divergence(x, tensor([0.0]), bits(size))

    by_bound = Settled(size, sweeps=SWEEPS, value=bound)
    by_listing = Settled(size, sweeps=SWEEPS, value=listed_value)
    settled = JointBound(by_bound, p).q(x)
    return {
        "log_p": -divergence(Given(mean)).nll,
        "bound_at": (bound.at(p, x, mean, xi) + Bits(mean.logit()).entropy())[0],
        "elbo_at": -divergence(Given(mean)).bound,
        "bound_best": (bound(p, x, settled.mean) + settled.entropy())[0],
        "elbo_best_mean_field": -divergence(by_listing).bound,
    }


FAMILIES = {"pairwise bits": pairs, "linear Gaussian": normals, "sigmoid belief net": sigmoid_net}


@pytest.mark.parametrize("item", items("31_mean_field"))
def test_family(item: Item) -> None:
    got = FAMILIES[item.input["family"]](item)
    best = {name for name in item.expected if "best" in name}
    close({name: got[name] for name in best}, {name: item.expected[name] for name in best}, OPTIMIZED)
    exact = item.expected.keys() - best
    close({name: got[name] for name in exact}, {name: item.expected[name] for name in exact}, item.tolerance)
    assert got.keys() == item.expected.keys()
