"""Planar flows: the map, its log-determinant, and the density of what it makes of a normal."""

import pytest
import torch
from golden import Item, items, tensor
from torch.distributions import Independent, Normal

pytest.importorskip("zuko")

from unibound.distributions.flows import Flow, Planar
from unibound.draws import draw


class At(Normal):
    """A standard normal whose draws are where we say [N, Z]."""

    def __init__(self, points: torch.Tensor) -> None:
        super().__init__(torch.zeros_like(points), torch.ones_like(points))
        self.points = points

    def rsample(self, sample_shape: torch.Size = ()) -> torch.Tensor:
        return self.points.expand(self._extended_shape(torch.Size(sample_shape)))


@pytest.mark.parametrize("item", items("16_planar_flow"))
def test_map_and_density(item: Item) -> None:
    z, u, w, b = (tensor(item.input[name]) for name in ("z0", "u", "w", "b"))
    layer = Planar(u, w, b)
    once, bent = layer.call_and_ladj(z)
    flow = Flow(Independent(At(z), 1), [layer, layer])
    twice, log_q = draw(flow, 1, reparameterized=True)
    item.check(z1=once, logdet1=bent, z2_same_layer_twice=twice[0], log_q_z2=log_q[0])
    torch.testing.assert_close(flow.log_prob(twice[0]), log_q[0])  # undone
