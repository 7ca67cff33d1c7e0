"""log Z of RBMs, by listing the side with fewer units."""

import pytest
from golden import Item, items
from machines import machine

Exact = pytest.importorskip("unibound_plugins.partition.exact").Exact


@pytest.mark.parametrize("item", items("01_rbm_logz"))
def test_log_z(item: Item) -> None:
    item.check(logZ=Exact().fit(machine(item.input["rbm"])).log_z.value)
