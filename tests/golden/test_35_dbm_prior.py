"""A deep Boltzmann machine as a prior: q draws its layers too, and what that costs against an exact prior."""

import pytest
from golden import Item, items, tensor
from layers import Lower, Upper
from listing import bits, bound, expectation, world_of
from machines import deep_machine

from unibound import Directed, JointBound
from unibound.distributions import Bits
from unibound.partition import enumeration

SETTLED = 2000  # sweeps


@pytest.mark.parametrize("item", items("35_dbm_prior"))
def test_bounds(item: Item) -> None:
    given, x = item.input, tensor([item.input["x"]])
    dbm = deep_machine([given["dbm"]["W1"], given["dbm"]["W2"]], [given["dbm"][name] for name in ("b", "c1", "c2")])
    dbm.sweeps = SETTLED
    outer = Upper(given["q"]["W"], given["q"]["b"])
    own = dbm.state_shape.numel() - dbm.event_shape.numel()
    joint = JointBound(
        outer.extended(dbm.inner, own), Directed(dbm, Lower(given["generator"]["W"], given["generator"]["b"]))
    )
    world, log_z = world_of(joint, x, dbm.state_shape.numel()), enumeration.log_sum(dbm)
    log_q = joint.q(x).log_prob(world.every_tau())  # [S, 1]
    log_w = world.log_joint(world.every_tau()) - log_q
    divergence = joint.divergence(x, tensor([0.0]), world.taus)
    zs = bits(dbm.event_shape.numel())
    log_prior = dbm.log_prob(bits(dbm.state_shape.numel())).view(len(zs), -1).logsumexp(1) - log_z
    logits = dbm.mean_field(zs)
    settled = dbm.log_f([zs, *(one.sigmoid() for one in logits)]) + sum(Bits(one).entropy() for one in logits)
    log_q_z = outer(x).log_prob(zs)
    generated = joint.p.generator(zs).log_prob(x) - log_q_z
    item.check(
        log_Z=log_z,
        log_prior_by_state=log_prior,
        mean_field_log_pstar_by_state=settled,
        mu2_by_state=dbm.inner(zs).mean,
        log_p=-divergence.nll,
        elbo_prior_exact=expectation(log_q_z, generated + log_prior),
        elbo_prior_mean_field=expectation(log_q_z, generated + settled - log_z),
        elbo_tau_z_h2=-divergence.bound,
        L_K_tau_z_h2={k: bound(log_q[:, 0], log_w[:, 0], int(k)) for k in item.expected["L_K_tau_z_h2"]},
    )
