"""An RBM's training step and annealing beside other libraries on the same work, where they are installed.

The first row is the peer, so a ratio of 0.5 is twice as fast.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bench_kernels import PATHS

from unibound import registries
from unibound.runs.train import Training
from unibound.settings.defaults import likelihood_over
from unibound.settings.records import Optimizer, Stage
from unibound.testing.by_hand import Machine

BATCH = CHAINS = 100


def plain_rbm(x: torch.Tensor, steps: int, prior: str = "rbm", **settings: int) -> tuple[Training, object]:
    """A plain RBM on data x, trained by PCD-k with plain SGD."""
    plugins = registries()
    made = plugins["prior"][prior]((x.shape[1],), num_chains=CHAINS, steps=steps, **settings)
    likelihood = likelihood_over(made.support)
    joint = plugins["model"]["identity"]().build(made, likelihood, likelihood, x.mean(0))
    stage = Stage(optimizer=Optimizer(algorithm="sgd", learning_rate=0.01))
    return Training(joint, [stage], x, batch_size=BATCH), plugins["estimator"]["cd"](steps=steps, chain="persistent")


def peer_step(theirs: Any, x: torch.Tensor, steps: int, after: Callable[[Any], object]) -> Callable[[], None]:
    """A step of PCD-k of a machine of rbms; its gradient is centered, as it is by default."""
    from rbms.training.pcd import fit_batch_pcd  # pyright: ignore[reportMissingImports]

    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.01, maximize=True)
    for parameter in theirs.parameters():
        parameter.grad = torch.zeros_like(parameter)
    chains = theirs.init_chains(CHAINS, weights=torch.ones(CHAINS, 1))

    @torch.no_grad()
    def step() -> None:
        nonlocal chains
        optimizer.zero_grad(set_to_none=False)
        chains, _ = fit_batch_pcd((x, torch.ones(len(x), 1)), chains, theirs, steps, beta=1.0)
        optimizer.step()
        after(theirs)

    return step


@pytest.mark.parametrize("steps", [1, 25])
@pytest.mark.parametrize("unit", ["bits", "spins"])
def bench_pcd_rbms(race, unit, steps):
    """PCD-k of 784 x 500, batch 100, against rbms and its bits, for want of spins."""
    pytest.importorskip("rbms", reason="pip install rbms, to compare with it")
    from rbms.bernoulli_bernoulli.classes import BBRBM  # pyright: ignore[reportMissingImports]

    machine = Machine.random(784, 500, CHAINS)
    x = (torch.rand(BATCH, 784) < 0.13).float()
    peer = peer_step(BBRBM(*(one.clone() for one in machine.parameters)), x, steps, lambda _: None)
    ours = {"bits": {}, "spins": {"prior": "spin_rbm"}}[unit]
    data = x if unit == "bits" else 2 * x - 1
    systems = {"rbms": peer}
    for name, centered in (("unibound", False), ("unibound, centered", True)):
        training, estimator = plain_rbm(data, steps, num_hidden=500, centered=centered, **ours)
        systems[name] = lambda training=training, estimator=estimator: training.step(estimator, data)
    target = {"bits": 1 / 1.8 if steps == 1 else None, "spins": 1.5}[unit]
    race(systems, targets=None if target is None else {"unibound": target})


@pytest.mark.parametrize("steps", [1, 25])
def bench_pcd_rbms_potts(race, steps):
    """PCD-k of 100 sites of 21 letters and 200 hidden bits, batch 100, against rbms, its gauge included."""
    pytest.importorskip("rbms", reason="pip install rbms, to compare with it")
    from rbms.potts_bernoulli.classes import PBRBM  # pyright: ignore[reportMissingImports]
    from rbms.potts_bernoulli.utils import ensure_zero_sum_gauge  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    theirs = PBRBM(0.01 * torch.randn(100, 21, 200), torch.zeros(100, 21), torch.zeros(200))
    x = torch.randint(21, (BATCH, 100)).float()
    training, estimator = plain_rbm(x, steps, "potts_rbm", num_categories=21, num_hidden=200)
    systems = {
        "rbms": peer_step(theirs, x, steps, ensure_zero_sum_gauge),
        "unibound": lambda: training.step(estimator, x),
    }
    race(systems, targets={"unibound": 1.5})


def bench_pcd_sklearn(race):
    """PCD-1 of 784 x 500, batch 100, against scikit-learn."""
    neural_network = pytest.importorskip("sklearn.neural_network", reason="pip install scikit-learn")
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="it comes with scikit-learn")
    x = (torch.rand(BATCH, 784) < 0.13).float()
    theirs = neural_network.BernoulliRBM(n_components=500, learning_rate=0.01, batch_size=BATCH)
    theirs.partial_fit(x.numpy())
    training, estimator = plain_rbm(x, 1, num_hidden=500)
    systems = {
        "scikit-learn": lambda: theirs.partial_fit(x.numpy()),
        "unibound": lambda: training.step(estimator, x),
    }
    with threadpoolctl.threadpool_limits(1):
        race(systems, targets={"unibound": 1 / 2.3})


def bench_ais_rbms(race):
    """Twenty temperatures of 200 x 400 with 500 chains, against rbms."""
    pytest.importorskip("rbms", reason="pip install rbms, to compare with it")
    from rbms.bernoulli_bernoulli.classes import BBRBM  # pyright: ignore[reportMissingImports]
    from rbms.partition_function.ais import compute_partition_function_ais  # pyright: ignore[reportMissingImports]

    machine = Machine.random(200, 400, 500)
    theirs, base = BBRBM(*machine.parameters), torch.zeros(200)
    betas = torch.linspace(0, 1, 21, dtype=torch.float64)
    systems = {"rbms": lambda: compute_partition_function_ais(500, 21, theirs)}
    for name, path in PATHS.items():
        systems[name] = lambda path=path: path.rbm_ais(machine.v, *machine.parameters, base, betas)
    race(systems, rounds=15)
