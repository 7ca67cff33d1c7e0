"""Mean field that is settled for each datum: monotone in sequence, not all at once, and the envelope theorem."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from unibound import Directed, Generator, JointBound, Layered, UsageError
from unibound.distributions import Bits
from unibound.settled import Settled, listed_value, settle
from unibound.sigmoid_bound import SigmoidBound
from unibound.testing.listing import all_bits, scatter
from unibound.testing.networks import AffineGenerator, BitGenerator, BitInference
from unibound.testing.priors import Bell, Rates


def sigmoid_net(size: int = 3) -> Layered:
    return scatter(Layered(Rates((size,)), [AffineGenerator(size, 4)], [size]), 2, 1.5)


def elbo(p: Layered, x: Tensor, sweeps: int) -> Tensor:
    q = JointBound(Settled(3, sweeps=sweeps, value=listed_value), p).q(x)
    return listed_value(p, x, q.mean) + q.entropy()


def test_each_sweep_climbs_for_every_datum() -> None:
    p, x = sigmoid_net(), all_bits((4,))
    climbed = [elbo(p, x, sweeps) for sweeps in range(1, 7)]
    assert all(bool((after >= before - 1e-12).all()) for before, after in itertools.pairwise(climbed))
    assert bool((climbed[-1] - climbed[0]).max() > 1e-4)  # or nothing was climbed
    log_p = torch.stack([p.log_joint(x, tau.expand(len(x), -1)) for tau in all_bits((3,))]).logsumexp(0)
    assert bool((climbed[-1] <= log_p).all())


def test_all_at_once_goes_round_in_a_circle_and_is_refused() -> None:
    """Two bits that repel each other, moved together: what is gained for one is lost with the other."""

    def value(mean: Tensor) -> Tensor:
        return -8 * mean.prod(-1) + 4 * mean.sum(-1)

    start, together = torch.tensor([[0.3, 0.31]]).double(), [[0, 1]]
    bounds = []
    for sweeps in range(1, 6):
        logits = settle(value, start, together, sweeps)
        bounds.append((value(logits.sigmoid()) + Bits(logits).entropy()).item())
    assert min(after - before for before, after in itertools.pairwise(bounds)) < -0.1
    with pytest.raises(UsageError, match="bends within a piece of bits"):
        JointBound(Settled(3, pieces=[[0, 1, 2]], value=listed_value), sigmoid_net()).q(all_bits((4,)))


@pytest.mark.parametrize("value", [listed_value, SigmoidBound()], ids=["listed", "sigmoid bound"])
def test_a_datum_settles_alone_as_among_others(value: object) -> None:
    q, x = JointBound(Settled(3, sweeps=2, value=value), sigmoid_net()).q, all_bits((4,))[[1, 6, 12]]
    alone = torch.cat([q(row.unsqueeze(0)).mean for row in x])
    torch.testing.assert_close(alone, q(x).mean)


def test_settled_q_holds_still_in_the_gradient_of_p_and_loses_nothing() -> None:
    """The envelope theorem: the derivative of the best bound in p is that with q held where it is best."""
    p, x = sigmoid_net(), all_bits((4,))[[3]]
    q = JointBound(Settled(3, sweeps=60, value=listed_value), p).q(x)
    assert not q.mean.requires_grad
    weight = p.generators[0].network.weight
    held = torch.autograd.grad((listed_value(p, x, q.mean) + q.entropy()).sum(), weight)[0]
    step, best = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            weight[1, 2] += sign * step
            best.append(elbo(p, x, 60).sum())
            weight[1, 2] -= sign * step
    assert ((best[0] - best[1]) / (2 * step)).item() == pytest.approx(held[1, 2].item(), abs=1e-7)


def test_a_start_is_taught_where_to_begin() -> None:
    p, x = sigmoid_net(), all_bits((4,))
    start = scatter(BitInference(4, (3,)), 1)
    q = JointBound(Settled(3, sweeps=1, start=start, value=listed_value), p).q(x)
    (listed_value(p, x, q.mean) + q.entropy()).sum().backward()
    assert all(one.grad is not None and bool(one.grad.any()) for one in start.parameters())


def test_the_bound_of_sigmoid_nets_lies_below_the_elbo() -> None:
    p, x = sigmoid_net(), all_bits((4,))
    mean = torch.rand(16, 3, generator=torch.Generator().manual_seed(0)).double()
    assert bool((SigmoidBound()(p, x, mean) <= listed_value(p, x, mean) + 1e-12).all())


class Bent(Generator):
    """p(x | z): a normal whose mean bends with z."""

    def forward(self, tau: Tensor) -> Distribution:
        return Independent(Normal(tau.tanh(), torch.ones_like(tau)), 1)


REFUSED = {
    "bits for reals": (lambda: JointBound(Settled(2), Directed(Bell((2,)), Bent())), "does not fit latents of reals"),
    "not quadratic": (
        lambda: JointBound(Settled(2, over="reals"), Directed(Bell((2,)), Bent()).double()).q(
            torch.zeros(1, 2).double()
        ),
        "not quadratic in each latent; use a network for q",
    ),
    "not affine": (
        lambda: JointBound(
            Settled(2, value=SigmoidBound()), scatter(Layered(Rates((2,)), [BitGenerator(2, 3)], [2]), 1)
        ).q(all_bits((3,))),
        "affine in the layer above",
    ),
    "no bound seen": (lambda: Settled(2)(torch.zeros(1, 3)), "make a JointBound of both"),
    "a latent twice": (lambda: Settled(2, pieces=[[0], [0, 1]]), "each of the 2 latents once"),
    "no sweeps": (lambda: Settled(2, sweeps=0), "at least 1 sweep"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_does_not_fit_is_refused_in_one_line(case: str) -> None:
    make, words = REFUSED[case]
    with pytest.raises(UsageError, match=words) as caught:
        make()
    assert len(str(caught.value).splitlines()) == 1
