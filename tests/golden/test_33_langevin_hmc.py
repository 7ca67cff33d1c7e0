"""Langevin and Hamiltonian moves of one real, and the distribution that Langevin steps settle in."""

import math

import pytest
import torch
from golden import Item, items, tensor
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from unibound.testing.laws.prior import Subject
from unibound.testing.priors import Well

HMC = pytest.importorskip("unibound_plugins.transitions.hmc").HMC
MALA = pytest.importorskip("unibound_plugins.transitions.mala").MALA
Langevin = pytest.importorskip("unibound_plugins.transitions.langevin").Langevin
CASE = "33_langevin_hmc"


class DoubleWell(Well):
    """x^4 / 4 - x^2 / 2 + 0.3 x, annealed from a standard normal; its parameters are fixed."""

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        own = tau**4 / 4 - tau.square() / 2 + 0.3 * tau
        return (beta * own + (1 - beta) * tau.square() / 2).flatten(-1).sum(-1)


class Bell(Well):
    """x^2 / 2v."""

    variance = 1.0

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        return (tau.square() / (2 * self.variance)).sum(-1)


def named(family: str) -> list:
    return [param for param in items(CASE) if param.values[0] is None or family in param.id]


@pytest.mark.parametrize("item", named("mala"))
def test_mala(item: Item) -> None:
    subject = Subject.of(DoubleWell)
    energy, log_p = subject.energy_prior, subject.log_p(1.0).detach()
    proposals, ratios = [], []
    for x, noise, step in zip(*(item.input[name] for name in ("x", "noise", "step")), strict=True):
        proposed, log_ratio = MALA(step=step).propose(energy, tensor([[x]]), 1.0, tensor([[noise]]))
        proposals.append(proposed.item())
        ratios.append(log_ratio.item())
    grid = subject.taus.flatten()
    item.check(
        log_Z=(subject.log_measure - energy.free_energy(subject.taus)).logsumexp(0),
        proposal=proposals,
        log_accept=ratios,
        mean=(log_p.exp() * grid).sum(),
        second_moment=(log_p.exp() * grid.square()).sum(),
    )


@pytest.mark.parametrize("item", named("ula"))
def test_ula(item: Item) -> None:
    energy, step = Bell((1,)).double(), item.input["step"]
    energy.variance = item.input["variance"]
    pull = Langevin(step=step).drift(energy, tensor([[1.0]]), 1.0).item()  # linear in x, so that this is all of it
    variance = step / (1 - pull**2)
    settled, target = (Normal(tensor(0.0), tensor(math.sqrt(value))) for value in (variance, energy.variance))
    item.check(ula_variance=variance, ula_kl_to_target=kl_divergence(settled, target))


@pytest.mark.parametrize("item", named("ula"))
def test_chains_of_ula_have_that_variance(item: Item) -> None:
    energy = Bell((1,)).double()
    energy.variance, energy.transition = item.input["variance"], Langevin(step=item.input["step"])
    torch.manual_seed(0)
    end = energy.move(math.sqrt(item.expected["ula_variance"]) * torch.randn(40_000, 1).double(), 30)
    error = item.expected["ula_variance"] * math.sqrt(2 / len(end))
    assert abs(end.var().item() - item.expected["ula_variance"]) < 4.75 * error
    assert end.var().item() - energy.variance > 4.75 * error
    assert not energy.moves_exactly


@pytest.mark.parametrize("item", named("hmc"))
def test_hmc(item: Item) -> None:
    energy = DoubleWell((1,)).double()
    hmc = HMC(step=item.input["step"], leapfrogs=item.input["leapfrogs"])
    x, momentum, error = hmc.roll(
        energy, tensor([[item.input["x"]]]), item.input["beta"], tensor([[item.input["momentum"]]])
    )
    item.check(x=x[0, 0], momentum=momentum[0, 0], log_accept=min(0.0, -error.item()), energy_error=error[0])
    back, turned, _ = hmc.roll(energy, x, item.input["beta"], -momentum)
    assert back.item() == pytest.approx(item.input["x"], abs=1e-12)
    assert turned.item() == pytest.approx(-item.input["momentum"], abs=1e-12)
