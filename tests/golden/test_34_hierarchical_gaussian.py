"""Layers of normals, linear in each other: what each adds to the bound, with q going up, and down a ladder."""

import math
from typing import Any

import pytest
import torch
from golden import Item, items, tensor
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from unibound import Downward, Generator, Inference, JointBound, Layered, Upward
from unibound.draws import Chain

Gaussian = pytest.importorskip("unibound_plugins.priors.gaussian").Gaussian


def normal(mean: Tensor, scale: Any) -> Distribution:
    return Independent(Normal(mean, tensor(scale).expand_as(mean)), 1)


class Affine(nn.Module):
    """A normal whose mean is affine in what it is given."""

    def __init__(self, weight: Any, bias: Any, scale: Any) -> None:
        super().__init__()
        self.weight, self.bias, self.scale = tensor(weight), tensor(bias), scale

    def forward(self, given: Tensor) -> Distribution:
        return normal(given @ self.weight.mT + self.bias, self.scale)


class AffineUp(Affine, Inference):
    pass


class AffineDown(Affine, Generator):
    pass


class Read(nn.Module):
    """The same normals for each layer, whatever the datum."""

    def __init__(self, *layers: tuple[Any, Any]) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> list[Distribution]:
        return [normal(tensor(mean).expand(len(x), -1), scale) for mean, scale in self.layers]


def means(joint: JointBound, x: Tensor) -> Tensor:
    """E_q of each term of log w, exactly: quadratic in the noise, its mean is that over two points on each axis."""
    made = joint.q(x)
    assert isinstance(made, Chain)
    size = sum(made.sizes)
    noise = math.sqrt(size) * torch.cat([torch.eye(size), -torch.eye(size)]).double().unsqueeze(1)  # [2 Z, 1, Z]
    pieces, piece = [], made.first
    for make in (*made.rest, None):
        own = noise[..., : piece.event_shape[0]]
        noise = noise[..., own.shape[-1] :]
        pieces.append(piece.mean + piece.stddev * own)
        if make is not None:
            piece = make(pieces)
    downward = isinstance(joint.q, Downward)
    return joint.log_weight_terms(x, torch.cat(pieces[::-1] if downward else pieces, -1)).mean((1, 2))


def log_prob(joint: JointBound, x: Tensor, size: int) -> Tensor:
    """log p(x): log p(x, tau) is quadratic in tau, and so known by its height and bend where it is highest."""

    def height(tau: Tensor) -> Tensor:
        return joint.p.log_joint(x, tau.unsqueeze(0)).sum()

    zero = torch.zeros(size).double()
    bend = -torch.autograd.functional.hessian(height, zero)
    top = torch.linalg.solve(bend, torch.autograd.functional.jacobian(height, zero))
    return height(top) + size / 2 * math.log(2 * math.pi) - bend.logdet() / 2


@pytest.mark.parametrize("item", items("34_hierarchical_gaussian"))
def test_bounds(item: Item) -> None:
    p, up, ladder, x = (item.input[name] for name in ("p", "q_bottom_up", "ladder", "x"))
    x, sizes = tensor([x]), [len(p["a1"]), len(p["A1"][0])]
    generation = Layered(
        Gaussian((sizes[1],)).double(),
        [AffineDown(p["W"], p["m"], p["sx"]), AffineDown(p["A1"], p["a1"], p["s1"])],
        sizes,
    )
    layers = [AffineUp(up[f"R{layer}"], up[f"r{layer}"], up[f"t{layer}"]) for layer in (1, 2)]
    upward = JointBound(Upward(layers, sizes), generation)
    read = Read(*((ladder[f"mu{layer}"], ladder[f"sigma{layer}"]) for layer in (1, 2)))
    downward = JointBound(Downward(read, sizes), generation)
    log_p = log_prob(upward, x, sum(sizes))
    terms, down_terms = means(upward, x), means(downward, x)
    made, z2 = downward.q(x), tensor([ladder["z2"]])
    assert isinstance(made, Chain)
    given_top = made.rest[0]([z2])
    top = generation.prior.distribution()
    assert top is not None
    item.check(
        log_p=log_p,
        elbo=terms.sum(),
        reconstruction=terms[0],
        piece_z1=-terms[1],
        piece_z2=-terms[2],
        kl_posterior=log_p - terms.sum(),
        ladder={
            "q_mean_z1": given_top.mean[0],
            "q_var_z1": given_top.variance[0],
            "kl_z1_at_z2": kl_divergence(given_top, generation.generators[1](z2))[0],
            "kl_z2": kl_divergence(made.first, top.expand([1]))[0],
            "expected_kl_z1": -down_terms[1],
            "reconstruction": down_terms[0],
            "elbo": down_terms.sum(),
        },
    )
    torch.testing.assert_close(-down_terms[2], kl_divergence(made.first, top.expand([1]))[0])
