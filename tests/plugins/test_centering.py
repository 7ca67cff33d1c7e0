"""Centered gradients: those of the centered machine, which learns the same however its units are read."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from unibound.energies.centering import Centering
from unibound.errors import UsageError
from unibound.partition import enumeration
from unibound.runs.build import build
from unibound.runs.train import Training
from unibound.settings import sources
from unibound.support import boolean, spin
from unibound.testing.listing import all_states, scatter

RBM = pytest.importorskip("unibound_plugins.priors.rbm").RBM
SpinRBM = pytest.importorskip("unibound_plugins.priors.spin_rbm").SpinRBM

NAMES = ("weight", "visible_bias", "hidden_bias")


def machine(kind: type = RBM, **settings: Any):
    prior = scatter(kind((4,), num_hidden=3, num_chains=7, centered=True, **settings), 1)
    prior.advance()
    return prior


def log_likelihood(prior, x: Tensor) -> Tensor:
    """Exact, by listing, with the gradients of the prior."""
    states = all_states(prior.support, (4,))
    return (-prior.free_energy(x)).mean() - (-prior.free_energy(states)).logsumexp(0)


def data(support: Any) -> Tensor:
    states = all_states(support, (4,))
    return states[torch.tensor([0, 1, 1, 3, 7, 7, 7, 9, 14])]


def step(prior, x: Tensor, rate: float) -> None:
    """One of plain gradient ascent of the exact likelihood."""
    prior.zero_grad()
    log_likelihood(prior, x).backward()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += rate * parameter.grad


@pytest.mark.parametrize("kind", [RBM, SpinRBM])
def test_no_value_depends_on_it(kind: type) -> None:
    prior = machine(kind)
    plain = kind((4,), num_hidden=3, num_chains=7).double()
    plain.load_state_dict({name: prior.state_dict()[name] for name in plain.state_dict()})
    states = all_states(kind.support, (4,))
    assert torch.equal(prior.free_energy(states), plain.free_energy(states))
    assert torch.equal(prior.free_energy(states, 0.3), plain.free_energy(states, 0.3))
    assert enumeration.log_sum(prior) == enumeration.log_sum(plain)
    assert prior.centering.visible.allclose(prior.chains.mean(0))
    assert not torch.allclose(*(torch.autograd.grad(log_likelihood(p, data(kind.support)), p.weight)[0]
                                for p in (prior, plain)))  # fmt: skip


@pytest.mark.parametrize("kind", [RBM, SpinRBM])
def test_it_is_the_gradient_of_the_centered_machine(kind: type) -> None:
    """A step is, to first order, one of a machine written with offsets, whose gradient is torch's own."""
    prior, rate = machine(kind), 1e-6
    x, (m, o) = data(kind.support), (prior.centering.visible, prior.centering.hidden)
    weight, b, c = (getattr(prior, name).detach().clone() for name in NAMES)
    shifted = [weight, b + weight @ o, c + m @ weight]  # W, b* and c* of the same machine
    for one in shifted:
        one.requires_grad_()

    def plain(weight: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return weight, b - weight @ o, c - m @ weight

    free = kind((4,), num_hidden=3).double()
    states = all_states(kind.support, (4,))

    def value(*starred: Tensor) -> Tensor:
        replaced = dict(zip(NAMES, plain(*starred), strict=True))
        free_x, free_all = (torch.func.functional_call(Free(free), {f"of.{k}": v for k, v in replaced.items()}, (s,))
                            for s in (x, states))  # fmt: skip
        return -free_x.mean() - (-free_all).logsumexp(0)

    slopes = torch.autograd.grad(value(*shifted), shifted)
    with torch.no_grad():
        moved = plain(*(one + rate * slope for one, slope in zip(shifted, slopes, strict=True)))
    step(prior, x, rate)
    for name, before, after in zip(NAMES, (weight, b, c), moved, strict=True):
        # what is left is of second order
        assert torch.allclose((getattr(prior, name) - before) / rate, (after - before) / rate, atol=1e-4)


class Free(torch.nn.Module):
    def __init__(self, of) -> None:
        super().__init__()
        self.of = of

    def forward(self, tau: Tensor) -> Tensor:
        return self.of.free_energy(tau)


def flipped(prior, which: slice):
    """The same machine with some visible bits read the other way round, its offsets too."""
    other = machine()
    other.load_state_dict(prior.state_dict())
    with torch.no_grad():
        other.hidden_bias += prior.weight[which].sum(0)
        other.weight[which] *= -1
        other.visible_bias[which] *= -1
        other.centering.visible[which] = 1 - prior.centering.visible[which]
    return other


def flip(x: Tensor, which: slice) -> Tensor:
    x = x.clone()
    x[:, which] = 1 - x[:, which]
    return x


def learns_the_same(prior) -> bool:
    """Whether, after some steps, it is the same distribution as one that read two of the bits the other way round."""
    which, x = slice(1, 3), data(boolean)
    other = flipped(prior, which)
    other.centering.__class__ = prior.centering.__class__
    assert torch.allclose(log_likelihood(prior, x), log_likelihood(other, flip(x, which)))
    for _ in range(5):
        step(prior, x, 1e-3)
        step(other, flip(x, which), 1e-3)
    states = all_states(boolean, (4,))
    own, theirs = prior.free_energy(states), other.free_energy(flip(states, which))
    return bool((own - own[0] - theirs + theirs[0]).abs().max() < 1e-4 * (1e-3 * 5))


class WeightAlone(Centering):
    """Leaves the biases as they were."""

    def forward(self, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor):
        return super().forward(weight, visible_bias, hidden_bias)[0], visible_bias, hidden_bias


class Off(Centering):
    def forward(self, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor):
        return weight, visible_bias, hidden_bias


@pytest.mark.parametrize(("centering", "same"), [(Centering, True), (WeightAlone, False), (Off, False)])
def test_a_machine_learns_the_same_however_bits_are_read(centering: type, same: bool) -> None:
    prior = machine()
    prior.centering.__class__ = centering
    assert learns_the_same(prior) == same


def test_spins_read_the_other_way_round_are_no_matter_to_begin_with() -> None:
    """Offsets of 0: the gradient is the plain one."""
    prior = scatter(SpinRBM((4,), num_hidden=3, centered=True), 1)
    plain = scatter(SpinRBM((4,), num_hidden=3), 1)
    for one in (prior, plain):
        log_likelihood(one, data(spin)).backward()
    assert torch.allclose(prior.weight.grad, plain.weight.grad)


def test_the_means_are_saved_and_of_the_last_steps() -> None:
    prior = machine()
    for _ in range(3):
        prior.advance()
    again = RBM((4,), num_hidden=3, num_chains=7, centered=True).double()
    again.load_state_dict(prior.state_dict())
    assert torch.equal(again.centering.hidden, prior.centering.hidden)
    prior.chains.fill_(1.0)
    prior.steps = 0
    for _ in range(1000):
        prior.advance()
    assert (1 - prior.centering.visible).abs().max() < 1e-3


@pytest.mark.parametrize(("algorithm", "refused"), [("sgd", False), ("adam", True), ("adamax", True)])
@pytest.mark.parametrize("trains", [[], ["q"]])
def test_steps_that_scale_each_element_are_refused(algorithm: str, refused: bool, trains: list[str]) -> None:
    chosen = {
        "model": {"num_latents": 4, "hidden": [3]},
        "prior": {"name": "rbm", "num_hidden": 3, "num_chains": 5, "centered": True},
        "trains": trains,
        "optimizers": {"prior": {"algorithm": algorithm}},
    }
    x = (torch.rand(6, 5) < 0.5).float()
    settings = sources.resolve([sources.Layer(chosen)])
    expected = (
        pytest.raises(UsageError, match=f"steps for sgd, and {algorithm}") if refused and not trains else nullcontext()
    )
    with expected:
        Training(build(settings, x.mean(0)), settings.stages, x, batch_size=3)
