"""The diffusion in continuous time: its losses in any number of steps and in their limit, by quadrature."""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from golden import Item, items, tensor
from torch import Tensor, nn
from torch.distributions import Normal

vdm: Any = pytest.importorskip("unibound_plugins.models.vdm")
Gaussian = pytest.importorskip("unibound_plugins.priors.gaussian").Gaussian


def legendre(count: int = 400) -> tuple[Tensor, Tensor]:
    """Nodes of a quadrature over t from 0 to 1, and their weights."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return tensor(nodes + 1) / 2, tensor(weights) / 2


def hermite(count: int = 8) -> tuple[Tensor, Tensor]:
    """Nodes of a quadrature over a standard normal, and their weights: exact for polynomials."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return tensor(nodes), tensor(weights) / math.sqrt(2 * math.pi)


class Linear(nn.Module):
    """The best guess of x given z_t, for x of a normal."""

    def __init__(self, schedule: Any, mean: float, variance: float) -> None:
        super().__init__()
        self.schedule, self.mean, self.variance = schedule, mean, variance

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule.scales(t)
        slope = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        return slope * z + self.mean * (1 - slope * alpha)


class Losses:
    """What a bound is made of, for data that are normal or one point."""

    def __init__(self, given: dict[str, Any], denoiser: tuple[float, float], steps: int, shape: str) -> None:
        kind: Literal["linear", "bent"] = "bent" if shape == "bent" else "linear"
        self.schedule = vdm.Schedule(given["gamma_0"], given["gamma_1"], kind)
        prior = Gaussian((1,)).double()
        denoise = Linear(self.schedule, *denoiser)
        self.p = vdm.MomentGeneration(prior, denoise, self.schedule, torch.zeros(1).double(), steps, 10)

    def mean(self, x: Tensor, t: Tensor, value: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """E of a value of x and z_t over q(z_t | x), for x [N, 1] and t [T]: [T, N]."""
        noise, weights = hermite()
        q = self.schedule.noisy(x, t.unsqueeze(-1))
        z = q.mean + q.stddev * noise.view(-1, 1, 1, 1)  # [Q, T, N, 1]
        return (weights.view(-1, 1, 1) * value(x.expand_as(z), z)).sum(0)

    def diffusion(self, x: Tensor) -> Tensor:
        """The diffusion loss of x [N, 1]: [N]."""
        steps = self.p.steps
        t, weights = legendre() if steps == 0 else (tensor([*range(steps)]) / steps, torch.full((steps,), 1.0 / steps))
        end = self.p.upper(t)
        here = t.view(1, -1, 1)
        loss = self.mean(x, end, lambda x, z: self.p.loss(x, z, here.expand(z.shape[:-1])))
        return weights.double() @ loss

    def ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The losses of z_1 and of p(x | z_0), of x [N, 1]: [N] each."""
        zero, one = tensor([0.0]), tensor([1.0])
        q = self.schedule.noisy(x, one.unsqueeze(-1))
        last = self.mean(x, one, lambda x, z: q.log_prob(z) - self.p.prior.log_prob(z))
        return last[0], -self.mean(x, zero, lambda x, z: self.p.likelihood(z).log_prob(x))[0]


def check_point(item: Item) -> None:
    given = item.input
    x, denoiser = tensor([[given["x"]]]), (given["denoiser_mean"], given["denoiser_variance"])
    losses = Losses(given, denoiser, 0, "linear")
    last, first = (value.item() for value in losses.ends(x))
    continuous = losses.diffusion(x).item()
    bent = Losses(given, denoiser, 0, "bent").diffusion(x).item()
    assert bent == pytest.approx(continuous, abs=1e-9)
    item.check(
        prior_loss=last,
        reconstruction_loss=first,
        diffusion_loss_T=[Losses(given, denoiser, steps, "linear").diffusion(x).item() for steps in given["T"]],
        diffusion_loss_T_bent=[Losses(given, denoiser, steps, "bent").diffusion(x).item() for steps in given["T"]],
        diffusion_loss_continuous=continuous,
        bound_continuous=last + first + continuous,
    )


def check_normal(item: Item) -> None:
    given = item.input
    mean, variance = given["data_mean"], given["data_var"]
    losses = Losses(given, (mean, variance), 0, "linear")
    noise, weights = hermite()
    x = (mean + math.sqrt(variance) * noise).unsqueeze(1)
    last, first = (weights @ value for value in losses.ends(x))
    diffusion = weights @ losses.diffusion(x)
    # With the best guess the steps back are those of q, of which there may be one: z_0 is linear in z_1, and normal.
    (alpha, sigma), (alpha_1, sigma_1) = (losses.schedule.scales(tensor(t)) for t in (0.0, 1.0))
    spread, spread_1 = alpha**2 * variance + sigma**2, alpha_1**2 * variance + sigma_1**2
    slope = alpha_1 / alpha * spread / spread_1
    model_mean = (alpha - slope * alpha_1) * mean / alpha
    model_var = (spread + slope**2 * (1 - spread_1) + sigma**2) / alpha**2
    model = Normal(model_mean, model_var.sqrt())
    item.check(
        prior_loss=last,
        reconstruction_loss=first,
        diffusion_loss_continuous=diffusion,
        bound_continuous=last + first + diffusion,
        nll=-(weights @ model.log_prob(x).squeeze(1)),
        entropy_data=Normal(tensor(mean), tensor(variance).sqrt()).entropy(),
        model_mean=model_mean.item(),
        model_var=model_var.item(),
    )


@pytest.mark.parametrize("item", items("21_continuous_diffusion"))
def test_losses(item: Item) -> None:
    check_point(item) if "x" in item.input else check_normal(item)
