"""Deep Boltzmann machines: log Z, mean field sweep by sweep, gradients, and annealing with odd layers summed out."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from golden import Item, items, tensor
from listing import bits, gradients, world_of
from machines import deep_machine
from torch import Tensor

from unibound import EnergyPrior
from unibound.distributions import Bits
from unibound.partition import enumeration

Identity = pytest.importorskip("unibound_plugins.models.identity").Identity
Bernoulli = pytest.importorskip("unibound_plugins.likelihoods.bernoulli").Bernoulli
SETTLED = 2000  # sweeps


@pytest.mark.parametrize("item", items("23_dbm"))
def test_machine(item: Item) -> None:
    given, v = item.input, tensor([item.input["v"]])
    dbm = deep_machine(given["W"], given["b"], given["ais"]["base_bias"])
    joint = Identity().build(dbm, Bernoulli(), Bernoulli(), torch.zeros(v.shape[1]).double())
    xs, size = bits(v.shape[1]), dbm.state_shape.numel()
    log_p, world = world_of(joint, xs, size).log_prob(), world_of(joint, v, size)
    weights = dict(dbm.weights.named_parameters())
    log_sum = (-dbm.free_energy(bits(size))).logsumexp(0)  # differentiable, where `log_prob` has a negative phase

    def elbo(sweeps: int) -> Tensor:
        logits = dbm.mean_field(v, sweeps)
        means = [one.sigmoid() for one in logits]
        return (dbm.log_f([v, *means]) + sum(Bits(one).entropy() for one in logits)).squeeze() - log_sum

    item.check(
        log_Z=enumeration.log_sum(dbm),
        log_p_by_state=log_p,
        log_p=log_p[xs.tolist().index(given["v"])],
        mf_elbo_after=[elbo(sweeps) for sweeps in given["mf_iterations"]],
        mu_fixed=[one.sigmoid()[0] for one in dbm.mean_field(v, SETTLED)],
        log_f_even=-dbm.free_energy(bits(size)),
        grad_log_p_W=list(gradients(world.log_prob().sum(), weights).values()),
        grad_variational_W=list(gradients(elbo(SETTLED), weights).values()),
        ais=annealed(dbm, bits(size), given["ais"]["betas"]),
    )


@torch.no_grad()
def annealed(dbm: EnergyPrior, states: Tensor, betas: list[float]) -> dict[str, Any]:
    """Exact moments of the weights of annealing, by the transitions between all states [S, S]."""
    steps = [dbm.free_energy(states, a) - dbm.free_energy(states, b) for a, b in pairwise(betas)]  # [S] nats
    moves = [dbm.log_transition(states, beta).exp() for beta in betas[1:]]
    there = weighed = (-dbm.free_energy(states, 0.0)).softmax(0)
    log_w = tensor(0.0)
    for step, move in zip(steps, moves, strict=True):
        log_w = log_w + there @ step
        there, weighed = there @ move, (weighed * step.exp()) @ move
    back, log_w_reverse = (-dbm.free_energy(states)).softmax(0), tensor(0.0)
    for step, move in zip(reversed(steps), reversed(moves), strict=True):
        back = back @ move
        log_w_reverse = log_w_reverse + back @ step
    return {
        "log_Z0": dbm.base_log_z(),
        "E_w": weighed.sum(),
        "E_log_w": log_w,
        "E_log_w_reverse": log_w_reverse,
        "p_ann_even": there,
    }
