"""An RBM's training step and annealing beside other libraries on the same work, where they are installed.

The first row is the peer, so a ratio of 0.5 is twice as fast.
"""

import pytest
import torch
from bench_kernels import PATHS

from unibound import registries
from unibound.runs.train import Training
from unibound.settings.records import Optimizer, Stage
from unibound.testing.by_hand import Machine

BATCH = CHAINS = 100


def plain_rbm(x: torch.Tensor, hidden: int, steps: int) -> tuple[Training, object]:
    """A plain RBM on data x, trained by PCD-k with plain SGD."""
    plugins = registries()
    prior = plugins["prior"]["rbm"]((x.shape[1],), num_hidden=hidden, num_chains=CHAINS, steps=steps)
    bernoulli = plugins["likelihood"]["bernoulli"]()
    joint = plugins["model"]["identity"]().build(prior, bernoulli, bernoulli, x.mean(0))
    stage = Stage(optimizer=Optimizer(algorithm="sgd", learning_rate=0.01))
    return Training(joint, [stage], x, batch_size=BATCH), plugins["estimator"]["cd"](steps=steps, chain="persistent")


@pytest.mark.parametrize("steps", [1, 25])
def bench_pcd_rbms(race, steps):
    """PCD-k of 784 x 500, batch 100, against rbms; its gradient is centered, as it is by default."""
    pytest.importorskip("rbms", reason="pip install rbms, to compare with it")
    from rbms.bernoulli_bernoulli.classes import BBRBM  # pyright: ignore[reportMissingImports]
    from rbms.training.pcd import fit_batch_pcd  # pyright: ignore[reportMissingImports]

    machine = Machine.random(784, 500, CHAINS)
    theirs = BBRBM(*(tensor.clone() for tensor in (machine.weight, machine.visible_bias, machine.hidden_bias)))
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.01, maximize=True)
    for parameter in theirs.parameters():
        parameter.grad = torch.zeros_like(parameter)
    chains = theirs.init_chains(CHAINS)
    x = (torch.rand(BATCH, 784) < 0.13).float()

    @torch.no_grad()
    def peer() -> None:
        nonlocal chains
        optimizer.zero_grad(set_to_none=False)
        chains, _ = fit_batch_pcd((x, torch.ones(BATCH, 1)), chains, theirs, steps, beta=1.0)
        optimizer.step()

    training, estimator = plain_rbm(x, 500, steps)
    systems = {"rbms": peer, "unibound": lambda: training.step(estimator, x)}
    race(systems, targets={"unibound": 1 / 1.8} if steps == 1 else None)


def bench_pcd_sklearn(race):
    """PCD-1 of 784 x 500, batch 100, against scikit-learn."""
    neural_network = pytest.importorskip("sklearn.neural_network", reason="pip install scikit-learn")
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="it comes with scikit-learn")
    x = (torch.rand(BATCH, 784) < 0.13).float()
    theirs = neural_network.BernoulliRBM(n_components=500, learning_rate=0.01, batch_size=BATCH)
    theirs.partial_fit(x.numpy())
    training, estimator = plain_rbm(x, 500, 1)
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
