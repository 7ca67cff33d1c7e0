"""Machines of every unit, trained on data whose distribution is known, and certified: the interval holds the truth."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import unibound
from unibound import Trained
from unibound.partition import enumeration

SIDE, LETTERS, LENGTH = 4, 4, 8


def ising(beta: float) -> tuple[Tensor, float]:
    """Exact draws of spins on a torus of 4 x 4, neighbors alike, and their entropy in nats."""
    states = torch.tensor(list(product((-1.0, 1.0), repeat=SIDE**2)))
    grid = states.view(-1, SIDE, SIDE)
    return drawn(states, beta * (grid * (grid.roll(1, 1) + grid.roll(1, 2))).sum((1, 2)))


def alignment() -> tuple[Tensor, float]:
    """Exact draws of eight letters of four, every two of which interact, and their entropy in nats."""
    states = torch.tensor(list(product(range(LETTERS), repeat=LENGTH)))
    field, coupling = 0.5 * torch.randn(LENGTH, LETTERS), 0.6 * torch.randn(LENGTH, LENGTH, LETTERS, LETTERS)
    log_p = torch.stack([field[i][states[:, i]] for i in range(LENGTH)]).sum(0)
    for i, j in product(range(LENGTH), repeat=2):
        if j < i:
            log_p = log_p + coupling[i, j][states[:, i], states[:, j]]
    return drawn(states.float(), log_p)


def drawn(states: Tensor, log_p: Tensor) -> tuple[Tensor, float]:
    log_p = log_p.double().log_softmax(0)
    return states[torch.multinomial(log_p.exp(), 3000, replacement=True)], -(log_p.exp() * log_p).sum().item()


def digits() -> tuple[Tensor, float]:
    """Standardized pixels of handwritten digits, those that vary; of no known entropy."""
    x = torch.tensor(pytest.importorskip("sklearn.datasets").load_digits().data).float()
    x = x[:, x.std(0) > 0.5]
    return (x - x.mean(0)) / x.std(0), torch.inf


MACHINES: dict[str, tuple[Any, dict[str, Any], float]] = {
    # what the data are, a machine for them, and by how much its likelihood may fall short of the truth in nats
    "reals": (digits, {"name": "gaussian_rbm", "num_hidden": 10}, 0.0),
    "hot spins": (lambda: ising(0.2), {"name": "spin_rbm", "num_hidden": 12}, 0.3),
    "critical spins": (lambda: ising(0.44), {"name": "spin_rbm", "num_hidden": 12}, 0.3),
    # of two phases that no chain leaves by itself
    "cold spins": (lambda: ising(0.8), {"name": "spin_rbm", "num_hidden": 12, "num_replicas": 6}, 0.1),
    "cold spins, earlier weights": (
        lambda: ising(0.8),
        {"name": "spin_rbm", "num_hidden": 12, "num_snapshots": 5},
        0.1,
    ),
    "letters": (alignment, {"name": "potts_rbm", "num_hidden": 10, "num_categories": LETTERS}, 0.5),
}
LIKELIHOODS = {"gaussian_rbm": "gaussian", "spin_rbm": "spins", "potts_rbm": "categorical"}


def trained(x: Tensor, prior: dict[str, Any]) -> Trained:
    return unibound.fit(
        x,
        model="identity",
        likelihood=LIKELIHOODS[prior["name"]],
        prior=prior | {"num_chains": 200},
        estimator={"name": "cd", "chain": "persistent"},
        optimizer={"learning_rate": 5e-3},
        epochs=30,
        num_particles=1,
        progress=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", MACHINES)
def test_a_trained_machine_is_certified_rightly(kind: str) -> None:
    make, prior, short = MACHINES[kind]
    torch.manual_seed(0)
    x, entropy = make()
    model = trained(x, prior)
    found, machine = model.certify(temperatures=1000), model.run.joint.p.prior.double()
    test = model.run.splits.test.double()
    log_z = enumeration.log_sum(machine)
    exact = (-machine.free_energy(test).mean() - log_z).item()
    assert found.verdict == "certified", found.reasons
    assert found.log_z_low - 0.01 < log_z < found.log_z_high + 0.01
    assert found.test_ll_low - 0.01 < exact < found.test_ll_high + 0.01
    noise = (-machine.free_energy(test)).std().item() / len(test) ** 0.5
    assert -exact < entropy + short + 3 * noise


@pytest.mark.slow
def test_without_replicas_a_cold_machine_stays_in_a_phase_and_the_certificate_is_of_what_it_is() -> None:
    torch.manual_seed(0)
    x, entropy = ising(0.8)
    model = trained(x, {"name": "spin_rbm", "num_hidden": 12})
    found, machine = model.certify(temperatures=1000), model.run.joint.p.prior.double()
    test = model.run.splits.test.double()
    exact = (-machine.free_energy(test).mean() - enumeration.log_sum(machine)).item()
    assert (
        -exact > entropy + 1
    )  # chains of one temperature have left the model no reason to give both phases their share
    assert found.verdict == "certified", found.reasons
    assert found.test_ll_low - 0.01 < exact < found.test_ll_high + 0.01
