"""RBMs over other units: spins, categories, counts, and rectified hidden ones."""

from typing import Any

import pytest
import torch
from golden import Item, items, tensor
from listing import bits
from torch import Tensor

from unibound.energies.restricted import Restricted
from unibound.energies.units import BitUnits, CountUnits, RectifiedUnits

SpinRBM = pytest.importorskip("unibound_plugins.priors.spin_rbm").SpinRBM
PottsRBM = pytest.importorskip("unibound_plugins.priors.potts_rbm").PottsRBM
Exact = pytest.importorskip("unibound_plugins.partition.exact").Exact


def of_family(family: str) -> list[Any]:
    return [param for param in items("29_unit_types") if param.values[0] is None or family in param.id]


def in_double(rbm: Restricted, **values: Tensor) -> Restricted:
    rbm.double().load_state_dict(values, strict=False)
    return rbm.eval()


def states_of(num_values: int, num_units: int) -> Tensor:
    """Every state, the first unit most significant [q^V, V]."""
    return torch.cartesian_prod(*[torch.arange(num_values).double()] * num_units).view(-1, num_units)


@pytest.mark.parametrize("item", of_family("spin"))
def test_spins(item: Item) -> None:
    W, b, c = (tensor(item.input[name]) for name in "Wbc")
    rbm = in_double(SpinRBM.from_weights(W, b, c), weight=W, visible_bias=b, hidden_bias=c)
    exact = Exact().fit(rbm)
    weight, visible, hidden, offset = rbm.as_bits()
    item.check(
        log_Z=exact.log_z.value,
        log_p_by_state=exact.log_prob(2 * bits(len(b)) - 1),
        bits_W=weight,
        bits_b=visible,
        bits_c=hidden,
        bits_offset=offset,
    )


@pytest.mark.parametrize("item", of_family("potts"))
def test_categories(item: Item) -> None:
    W, b, c = (tensor(item.input[name]) for name in "Wbc")
    given = PottsRBM.from_weights(W, b, c)
    rbm = in_double(given, weight=W, visible_bias=b, hidden_bias=c + W.mean(1).sum(0), offset=b.mean(1).sum())
    rbm.base_bias.copy_(tensor(item.input["base_logits"]).flatten())
    exact = Exact().fit(rbm)
    weight, visible, hidden = rbm.machine()
    got = {
        "log_Z": exact.log_z.value,
        "log_p_by_state": exact.log_prob(states_of(W.shape[1], len(W))),
        "p_v_given_h": visible.given(hidden.onto(tensor(item.input["h"]), weight.mT)).logits.softmax(-1),
        "log_Z0_all_hidden_free": rbm.base_log_z(),
    }
    rbm.offset.zero_()
    item.check(**got, log_Z_zero_sum_gauge=Exact().fit(rbm).log_z.value)


def test_each_family_has_a_kind_of_units() -> None:
    """Counts are that many tied bits, and what summing out a rectified unit takes is its integral."""
    torch.manual_seed(0)
    bias, weight = torch.randn(2).double(), torch.randn(2, 3).double()
    counts, tied = CountUnits(bias, 3), BitUnits(bias.repeat_interleave(3))
    field = torch.randn(4, 2).double()
    assert torch.allclose(counts.log_partition(field), tied.log_partition(field.repeat_interleave(3, 1)))
    listed = states_of(4, 2)
    assert torch.allclose(counts.log_prob(listed, field).exp().sum(0), torch.ones(4).double())
    assert torch.allclose(counts.onto(listed, weight), listed @ weight)
    rectified = RectifiedUnits(bias, torch.tensor([0.5, 2.0]).double())
    h = torch.linspace(0, 60, 600_001).double()
    for unit, total in enumerate((bias + field).T):
        log_f = h * total.unsqueeze(1) - rectified.precision[unit] * h.square() / 2  # [4, G]
        log_f[:, [0, -1]] += torch.tensor(0.5).log()  # trapezoids
        alone = RectifiedUnits(bias[unit : unit + 1], rectified.precision[unit : unit + 1])
        got = alone.log_partition(field[:, unit : unit + 1])
        assert torch.allclose(log_f.logsumexp(1) + torch.tensor(1e-4).log(), got, atol=1e-7)
