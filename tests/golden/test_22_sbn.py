"""Sigmoid belief nets: what every layer contributes, and gradients of log p and of the bounds that estimators have."""

import pytest
from golden import Item, items, tensor
from listing import bits, bound, expectation, expected_gradient, gradients, world_of
from nets import layered, parameters

NVIL = pytest.importorskip("unibound_plugins.estimators.nvil").NVIL
VIMCO = pytest.importorskip("unibound_plugins.estimators.vimco").VIMCO


@pytest.mark.parametrize("item", items("22_sbn"))
def test_bounds_and_gradients(item: Item) -> None:
    num_pixels, *sizes = item.input["sizes"]
    joint, x = layered(item.input["p"], item.input["q"], sizes), tensor([item.input["x"]])
    world, everywhere = world_of(joint, x, sum(sizes)), world_of(joint, bits(num_pixels), sum(sizes))
    divergence = joint.divergence(x, tensor([0.0]), world.taus)
    log_q = joint.q(x).log_prob(world.every_tau())  # [S, 1]
    terms = joint.log_weight_terms(x, world.every_tau())  # [L + 1, S, 1]
    reconstruction, *layers = (expectation(log_q, term).squeeze() for term in terms)
    named = parameters(joint)
    slopes = {
        "log_p": gradients(world.log_prob().sum(), named),
        "elbo": expected_gradient(world, NVIL(), named),
        "L_2": expected_gradient(world, VIMCO(num_particles=2), named),
    }
    item.check(
        log_p=-divergence.nll,
        log_p_by_state=everywhere.log_prob(),
        elbo=-divergence.bound,
        kl_posterior=divergence.bound - divergence.nll,
        L_K={k: bound(log_q[:, 0], terms.sum(0)[:, 0], int(k)) for k in item.expected["L_K"]},
        reconstruction=reconstruction,
        layer_kl=[-layer for layer in layers],
        grad={of: {name: slopes[of][name] for name in wanted} for of, wanted in item.expected["grad"].items()},
    )
