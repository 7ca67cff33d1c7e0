"""Deep belief nets: the bound of greedy training, and what the machine on top gains over the one below."""

import pytest
from golden import Item, items, tensor
from layers import Lower, Upper
from listing import bits, bound, expectation
from machines import machine, upside_down

from unibound import Directed, JointBound

Exact = pytest.importorskip("unibound_plugins.partition.exact").Exact


@pytest.mark.parametrize("item", items("24_dbn_bound"))
def test_bounds(item: Item) -> None:
    given = item.input
    first = {"W": given["W1"], "b": given["b_v"], "c": given["c_h1"]}
    turned = upside_down(first)
    generator = Lower(first["W"], first["b"])
    joint = JointBound(Upper(turned["W"], turned["b"]), Directed(machine(given["top"]), generator))
    top, rbm1, rbm1_above = (Exact().fit(machine(values)) for values in (given["top"], first, turned))
    xs, taus = bits(len(first["b"])), bits(len(first["c"]))  # [N, V], [S, H]
    every = taus.unsqueeze(1).expand(-1, len(xs), -1)  # [S, N, H]
    log_q = joint.q(xs).log_prob(every)  # [S, N]
    log_w = joint.p.log_joint(xs, every) - top.log_z.value - log_q
    reconstruction = expectation(log_q, joint.p.conditional(every).log_prob(xs))
    divergences = [joint.divergence(x.unsqueeze(0), tensor([0.0]), taus) for x in xs]
    chosen = xs.tolist().index(given["x_for_L_K"])
    item.check(
        log_Z_top=top.log_z.value,
        log_p_by_state=[-divergence.nll for divergence in divergences],
        bound_by_state=[-divergence.bound for divergence in divergences],
        reconstruction_by_state=reconstruction,
        kl_to_prior_by_state=expectation(log_q, log_q - top.log_prob(every)),
        rbm1_log_p_by_state=rbm1.log_prob(xs),
        gain_over_rbm1_by_state=expectation(log_q, top.log_prob(every) - rbm1_above.log_prob(every)),
        L_K={k: bound(log_q[:, chosen], log_w[:, chosen], int(k)) for k in item.expected["L_K"]},
    )
