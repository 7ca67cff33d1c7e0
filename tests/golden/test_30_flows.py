"""Autoregressive flows both ways, and generators whose density is found by undoing them."""

from typing import Any

import pytest
import torch
from golden import Item, items, tensor
from test_16_planar_flow import At
from torch import Tensor, nn
from torch.distributions import AffineTransform, Independent, SigmoidTransform, Transform, Uniform

from unibound.distributions.flows import Flow, Gated
from unibound.draws import draw

zuko: Any = pytest.importorskip("zuko")
Gaussian = pytest.importorskip("unibound_plugins.priors.gaussian").Gaussian


def shifted(mean: Tensor, log_scale: Tensor) -> Transform:
    """(x - m) exp(-s)."""
    scale = (-log_scale).exp()
    return AffineTransform(-mean * scale, scale)


def layer(given: dict[str, Any], univariate: Any) -> Transform:
    """An autoregressive map with one hidden layer of tanh units, of the weights of a case."""
    order, degree = torch.tensor(given["order"]), torch.tensor(given["degrees_hidden"])
    size, place = len(order), order.argsort() + 1
    found = zuko.flows.MaskedAutoregressiveTransform(
        size, order=place - 1, univariate=univariate, hidden_features=[len(degree)], activation=nn.Tanh
    ).double()
    below, above = degree.unsqueeze(1) >= place, place.unsqueeze(1) > degree
    twice = {name: torch.stack([tensor(given[f"{name}_m"]), tensor(given[f"{name}_s"])], 1) for name in "Wb"}
    found.hyper.load_state_dict(
        {
            "0.weight": tensor(given["W1"]),
            "0.bias": tensor(given["b1"]),
            "0.mask": below,
            "2.weight": twice["W"].flatten(0, 1),
            "2.bias": twice["b"].flatten(),
            "2.mask": above.repeat_interleave(2, 0),
        }
    )
    given["masks"] = [below.double(), above.double()]
    return found(None)


def check_affine_autoregressive(item: Item) -> None:
    points = tensor(item.input["points"])
    base = Independent(At(points), 1)
    maf, iaf = layer(item.input, shifted), layer(item.input, Gated)
    u, bent = maf.call_and_ladj(points)
    density = Flow(base, [maf.inv])
    x, log_p = draw(density, 1, reparameterized=True)
    z, log_q = draw(Flow(base, [iaf]), 1, reparameterized=True)
    item.check(
        masks=item.input["masks"],
        maf_u_of_x=u,
        maf_log_det=bent,
        maf_log_p_of_x=density.log_prob(points),
        maf_x_of_u=x[0],
        maf_log_p_of_that_x=log_p[0],
        iaf_gated_z=z[0],
        iaf_log_q=log_q[0],
    )


def check_affine(item: Item) -> None:
    scale, mean, x = (tensor(item.input[name]) for name in ("L", "mu", "x"))
    prior = Gaussian((len(mean),), covariance="full").double()
    prior.load_state_dict({"mean": mean, "log_scale": scale.diag().log(), "below_diagonal": scale})
    z = torch.linalg.solve_triangular(scale, (x - mean).T, upper=False).T
    item.check(log_p=prior.log_prob(x), z=z)


def check_inverse_cdf(item: Item) -> None:
    a, b, x = (tensor(item.input[name]) for name in "abx")
    points = x.unsqueeze(1)
    back = [SigmoidTransform().inv, AffineTransform(a, b)]
    flow = Flow(Independent(Uniform(torch.zeros(1).double(), torch.ones(1).double()), 1), back)
    item.check(u=flow.flow.transform(points).squeeze(1), log_p=flow.log_prob(points))


FAMILIES = {
    "affine autoregressive": check_affine_autoregressive,
    "x = mu + L z": check_affine,
    "x = a + b logit(u), u ~ U(0,1)": check_inverse_cdf,
}


@pytest.mark.parametrize("item", items("30_flows"))
def test_maps_and_densities(item: Item) -> None:
    FAMILIES[item.input["family"]](item)
