"""Chains of contrastive divergence and their reverse: the log-ratio telescopes to a difference of free energies."""

from itertools import chain, cycle, pairwise

import pytest
import torch
from golden import Item, items, tensor
from layers import Lower, Upper
from machines import Played, machine, upside_down
from torch import Tensor, nn

from unibound import registries

CD = pytest.importorskip("unibound_plugins.estimators.cd").CD
Identity = pytest.importorskip("unibound_plugins.models.identity").Identity


def log_prob(states: list[Tensor], *networks: nn.Module) -> Tensor:
    """log-probability of a chain given its beginning, each state drawn by the next network in turn."""
    steps = zip(cycle(networks), pairwise(states), strict=False)
    return sum((network(start).log_prob(end) for network, (start, end) in steps), torch.zeros(()))


@pytest.mark.parametrize("item", items("09_cd_telescoping"))
def test_log_ratios(item: Item) -> None:
    values, turned = item.input["rbm"], upside_down(item.input["rbm"])
    xs, zs = tensor(item.input["x"]), tensor(item.input["z"])  # [k + 1, V], [k + 1, H]
    steps, states = len(xs) - 1, list(chain(*zip(xs, zs, strict=True)))
    up, down = Upper(turned["W"], turned["b"]), Lower(values["W"], values["b"])
    rbm = machine(values, kind=Played)
    log_f_x, log_f_z = -rbm.free_energy(xs[0]), -machine(turned).free_energy(zs[-1])
    got = {
        "Z_x0": log_f_x,
        "Z_zk": log_f_z,
        "log_q_fwd_given_x0_zend": log_prob(states, up, down),
        "log_p_rev_given_zk": log_prob(states[::-1], down, up),
        "log_ratio_zend": log_f_z - log_f_x,
    }
    if steps:  # a chain that ends at a datum is that of cd
        rbm.play(xs[1:].unsqueeze(1))
        bits = registries()["likelihood"]["bernoulli"]()
        joint = Identity().build(rbm, bits, bits, torch.zeros(rbm.event_shape))
        got |= {
            "log_q_fwd_given_x0_xend": log_prob(states[:-1], up, down),
            "log_p_rev_given_xk": log_prob(states[-2::-1], up, down),
            "log_ratio_xend": CD(steps=steps)(joint, xs[:1]).surrogate[0],
        }
    item.check(**got)
