"""Renyi bounds, and the bidirectional Helmholtz machine, which is the one at alpha = 1/2."""

import pytest
from golden import Item, items, tensor
from listing import bits, expected_bound, gradients, renyi, world_of
from nets import layered, parameters

Renyi = pytest.importorskip("unibound_plugins.estimators.renyi").Renyi
BIHM = 0.5


@pytest.mark.parametrize("item", items("25_bihm_renyi"))
def test_bounds(item: Item) -> None:
    num_pixels, *sizes = item.input["sizes"]
    joint, xs = layered(item.input["p"], item.input["q"], sizes), bits(num_pixels)
    chosen = xs.tolist().index(item.input["x"])
    world, everywhere = world_of(joint, tensor([item.input["x"]]), sum(sizes)), world_of(joint, xs, sum(sizes))
    log_q = joint.q(xs).log_prob(everywhere.every_tau())  # [S, N]
    log_w = everywhere.log_joint(everywhere.every_tau()) - log_q
    log_p, log_p_tilde = everywhere.log_prob(), renyi(log_q, log_w, BIHM)  # [N]
    (made,) = Renyi().makes(joint).values()
    pairs = world_of(made, xs, 2 * sum(sizes))
    item.check(
        log_p_by_state=log_p,
        log_ptilde_by_state=log_p_tilde,
        log_inner_product_by_state=((everywhere.log_posterior() + log_q) / 2).logsumexp(0),
        two_log_Z=pairs.log_z(),
        log_pstar=pairs.log_prob()[chosen],
        log_p=log_p[chosen],
        log_ptilde=log_p_tilde[chosen],
        elbo=world.bound(1)[0],
        renyi={alpha: renyi(log_q, log_w, float(alpha))[chosen] for alpha in item.expected["renyi"]},
        renyi_K={
            alpha: {k: expected_bound(world, Renyi(alpha=float(alpha), num_particles=int(k))) for k in by_k}
            for alpha, by_k in item.expected["renyi_K"].items()
        },
        grad_log_ptilde=gradients(
            log_p_tilde[chosen], {name: parameters(joint)[name] for name in item.expected["grad_log_ptilde"]}
        ),
    )
