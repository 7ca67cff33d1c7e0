"""A network as an energy over reals: log Z against quadrature, training on rings and grids, and what it refuses."""

import math

import pytest
import torch
from torch import Tensor

from unibound import UsageError
from unibound.testing.listing import scatter

DeepEnergy = pytest.importorskip("unibound_plugins.priors.deep_energy").DeepEnergy
HMC = pytest.importorskip("unibound_plugins.transitions.hmc").HMC
Langevin = pytest.importorskip("unibound_plugins.transitions.langevin").Langevin
AIS = pytest.importorskip("unibound_plugins.partition.ais").AIS
BDMC = pytest.importorskip("unibound_plugins.partition.bdmc").BDMC
Exact = pytest.importorskip("unibound_plugins.partition.exact").Exact
CD = pytest.importorskip("unibound_plugins.estimators.cd").CD
Identity = pytest.importorskip("unibound_plugins.models.identity").Identity
Gaussian = pytest.importorskip("unibound_plugins.likelihoods.gaussian").Gaussian


@torch.no_grad()
def quadrature(prior) -> float:
    """log Z over two reals."""
    steps = torch.linspace(-20, 20, 801, dtype=torch.float64)
    points = torch.cartesian_prod(steps, steps)
    free = torch.cat([prior.free_energy(part) for part in points.split(100_000)])
    return (-free).logsumexp(0).item() + 2 * math.log(40 / 800)


def ring(count: int) -> Tensor:
    angle, radius = 2 * math.pi * torch.rand(count), 3 + 0.2 * torch.randn(count)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


def grid(count: int) -> Tensor:
    return 2.0 * torch.randint(3, (count, 2)) - 2 + 0.25 * torch.randn(count, 2)


def trained(x: Tensor, steps: int):
    prior = DeepEnergy((2,), num_chains=300, steps=3)
    prior.transition = HMC(step=0.2)
    joint = Identity().build(prior, Gaussian(), Gaussian(), x.mean(0))
    joint.p.bind(joint.q, x)
    optimizer, estimator = torch.optim.Adam(joint.parameters(), 1e-2), CD(chain="persistent")
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 1e-3, steps)
    for _ in range(steps):
        joint.advance()
        optimizer.zero_grad()
        estimator(joint, x[torch.randint(len(x), (200,))]).surrogate.mean().backward()
        optimizer.step()
        slower.step()
    prior.fit_base(x)
    return prior.double().eval()


def test_log_z_is_that_of_quadrature() -> None:
    torch.manual_seed(0)
    prior = scatter(DeepEnergy((2,), hidden=(16, 16)), 1, 0.5).eval()
    exact = quadrature(prior)
    prior.fit_base(prior.move(3 * prior.base_sample(500), 300))
    both = BDMC(num_chains=300, num_temperatures=150, num_steps=300).fit(prior).log_z
    for side in both.estimates:
        assert abs(side.value - exact) < 4.75 * side.stderr < 0.5
    prior.transition = Langevin(step=0.3)
    assert AIS(num_chains=20, num_temperatures=20).fit(prior).log_z.heuristic


@pytest.mark.slow
@pytest.mark.parametrize("data", [ring, grid])
def test_rings_and_grids(data) -> None:
    torch.manual_seed(0)
    x, test = data(2000), data(2000).double()
    prior = trained(x, 1500)
    exact = quadrature(prior)
    log_z = AIS(num_chains=300, num_temperatures=200).fit(prior).log_z
    assert log_z.side == "lower"
    assert not log_z.heuristic
    assert abs(log_z.value - exact) < 0.05
    nll = prior.free_energy(test).mean().item() + exact
    normal = torch.distributions.MultivariateNormal(x.double().mean(0), x.double().T.cov())
    assert nll < -normal.log_prob(test).mean().item() - 0.5


def test_the_center_is_that_of_the_first_codes_and_is_saved() -> None:
    x = 5 + 3 * torch.randn(50, 2)
    joint = Identity().build(DeepEnergy((2,)), Gaussian(), Gaussian(), x.mean(0))
    joint.p.bind(joint.q, x)
    prior = joint.p.prior
    assert torch.allclose(prior.center, x.mean(0))
    assert prior.chains.mean().item() == pytest.approx(5, abs=2)
    joint.p.bind(joint.q, x - 100)
    assert torch.allclose(prior.center, x.mean(0))
    again = DeepEnergy((2,))
    again.load_state_dict(prior.state_dict())
    assert torch.equal(again.free_energy(x), prior.free_energy(x))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 0.0}, "deep_energy: width must be positive, not 0"),
        ({"step": -1.0}, "deep_energy: step must be positive"),
        ({"num_replicas": 0}, "deep_energy: num_replicas must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        DeepEnergy((2,), **settings)


def test_its_states_cannot_be_listed() -> None:
    with pytest.raises(UsageError, match="exact lists states, but DeepEnergy is over reals; use ais or bdmc"):
        Exact().fit(DeepEnergy((2,)))
