"""A posterior that flows: drawn and scored in one pass, whatever library the flow is from."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, Transform
from torch.nn.functional import softplus
from unibound_plugins.estimators.iwae import IWAE
from unibound_plugins.estimators.rws import RWS
from unibound_plugins.estimators.sgvb import SGVB

from unibound import Directed, Inference, JointBound, registries
from unibound.distributions.flattening import flatten
from unibound.distributions.flows import Flow, Planar
from unibound.draws import draw
from unibound.evaluation.evaluate import evaluate
from unibound.runs.train import Training
from unibound.settings import sources
from unibound.testing.laws.draws import NUM_DRAWS, follow_log_prob
from unibound.testing.listing import scatter
from unibound.testing.networks import LinearGenerator
from unibound.testing.priors import Bell

zuko: Any = pytest.importorskip("zuko")


class Counted(nn.Linear):
    """A network that counts how often it is asked."""

    calls = 0

    def forward(self, input: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(input)


class FlowInference(Inference):
    """q(tau | x): a normal that is bent twice, how much depends on x."""

    def __init__(self, x_size: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.normal = Counted(x_size, 2 * size)

    def bends(self, x: Tensor) -> list[Transform]:
        """From where the normal is to tau, step by step."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Distribution:
        mean, raw = self.normal(x).chunk(2, -1)
        base = Independent(Normal(mean, 0.1 + softplus(raw)), 1)
        return Flow(base, self.bends(x))


class PlanarInference(FlowInference):
    def __init__(self, x_size: int, size: int) -> None:
        super().__init__(x_size, size)
        self.planes = Counted(x_size, 2 * (2 * size + 1))

    def bends(self, x: Tensor) -> list[Transform]:
        parts = [self.size, self.size, 1]
        pieces = [plane.split(parts, -1) for plane in self.planes(x).chunk(2, -1)]
        return [Planar.undoable(u, w, b.squeeze(-1)) for u, w, b in pieces]


class AutoregressiveInference(FlowInference):
    """The inverse autoregressive flow: one pass to draw, one for each latent to score what was not drawn.

    Source: Kingma et al., "Improving variational inference with inverse autoregressive flow" (2016),
    https://arxiv.org/abs/1606.04934
    """

    def __init__(self, x_size: int, size: int) -> None:
        super().__init__(x_size, size)
        make = zuko.flows.MaskedAutoregressiveTransform
        self.layers = nn.ModuleList(make(size, context=x_size, hidden_features=(8,), order=o) for o in self.orders())
        self.calls = 0
        for layer in self.layers:
            layer.hyper.register_forward_hook(self.count)

    def orders(self) -> list[Tensor]:
        forth = torch.arange(self.size)
        return [forth, forth.flip(0)]

    def count(self, *_: object) -> None:
        self.calls += 1

    def bends(self, x: Tensor) -> list[Transform]:
        return [layer(x) for layer in self.layers]


FLOWS = [PlanarInference, AutoregressiveInference]


def joint_of(flow: Callable[[int, int], FlowInference], seed: int = 1) -> JointBound:
    torch.manual_seed(seed)
    return scatter(JointBound(flow(3, 2), Directed(Bell((2,)), LinearGenerator(2, 3))), seed, scale=0.5)


def data(count: int = 40) -> Tensor:
    torch.manual_seed(9)
    return joint_of(PlanarInference, seed=4).p.dream(count)[0]


@pytest.mark.parametrize("flow", FLOWS)
def test_a_draw_is_scored_as_log_prob_would(flow: type[FlowInference]) -> None:
    q, x = joint_of(flow).q, data(5)
    for reparameterized in (True, False):
        tau, log_q = draw(q(x), 7, reparameterized=reparameterized)
        assert tau.shape == (7, 5, 2)
        assert tau.requires_grad == reparameterized
        torch.testing.assert_close(log_q, q(x).log_prob(tau))
        parameters = list(q.parameters())
        slopes = torch.autograd.grad(log_q.sum(), parameters, retain_graph=True)
        again = torch.autograd.grad(q(x).log_prob(tau).sum(), parameters)
        for one, other in zip(slopes, again, strict=True):
            torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("flow", FLOWS)
def test_the_density_integrates_to_one(flow: type[FlowInference]) -> None:
    q, x = scatter(joint_of(flow).q, 1, scale=0.3), data(3)
    steps = torch.linspace(-20, 20, 501).double()
    grid = torch.cartesian_prod(steps, steps).unsqueeze(1)  # [S, 1, 2]
    with torch.no_grad():
        total = q(x).log_prob(grid).exp().sum(0) * (steps[1] - steps[0]).square()
    torch.testing.assert_close(total, torch.ones(3).double(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("flow", FLOWS)
@torch.no_grad()
def test_draws_follow_the_density(flow: type[FlowInference]) -> None:
    q, x = joint_of(flow).q, data(3)
    tau, _ = draw(q(x), NUM_DRAWS)
    before = nn.utils.parameters_to_vector(q.parameters())

    def log_prob(parameters: Tensor) -> Tensor:
        nn.utils.vector_to_parameters(parameters, q.parameters())
        return q(x).log_prob(tau)

    assert follow_log_prob(log_prob, before, "of each of 3 data")


@pytest.mark.parametrize("estimator", [SGVB(num_particles=4), IWAE(num_particles=4)], ids=["sgvb", "iwae"])
def test_one_pass_through_every_network(estimator: SGVB | IWAE) -> None:
    planar, autoregressive = joint_of(PlanarInference), joint_of(AutoregressiveInference)
    for joint in (planar, autoregressive):
        estimator(joint, data(5)).surrogate.mean().backward()
        assert joint.q.normal.calls == 1
    assert planar.q.planes.calls == 1
    assert autoregressive.q.calls == len(autoregressive.q.layers)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("name", ["sgvb", "iwae", "rws"])
def test_it_trains(flow: type[FlowInference], name: str) -> None:
    joint, x = joint_of(flow), data()
    before = evaluate(joint, x, num_particles=200).nll
    values = {"estimator": {"name": name, "num_particles": 4}, "epochs": 15, "optimizer": {"learning_rate": 0.02}}
    list(Training(joint, sources.resolve([sources.Layer(values)]).stages, x, batch_size=20).epochs())
    after = evaluate(joint, x, num_particles=200)
    assert after.nll < before - 0.1
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in joint.q.parameters())


def test_its_gradient_is_that_of_the_bound_by_hand() -> None:
    """Of the draw, and not of where it came from: the same noise through a flow written out."""
    joint, x = joint_of(PlanarInference), data(5)
    torch.manual_seed(2)
    estimate = SGVB()(joint, x)
    got = torch.autograd.grad(estimate.surrogate.mean(), list(joint.q.parameters()))
    torch.manual_seed(2)
    mean, raw = joint.q.normal(x).chunk(2, -1)
    scale = 0.1 + softplus(raw)
    start = Normal(mean, scale).rsample((1,))
    tau, log_q = start, Normal(mean, scale).log_prob(start).sum(-1)
    for plane in joint.q.planes(x).chunk(2, -1):
        u, w, b = plane.split([2, 2, 1], -1)
        tau, bent = Planar.undoable(u, w, b.squeeze(-1)).call_and_ladj(tau)
        log_q = log_q - bent
    elbo = (joint.p.log_joint(x, tau) - log_q).mean(0)
    torch.testing.assert_close(estimate.bound, elbo.detach())
    for one, other in zip(got, torch.autograd.grad(-elbo.mean(), list(joint.q.parameters())), strict=True):
        torch.testing.assert_close(one, other)


def test_reweighted_wake_sleep_draws_without_gradients() -> None:
    joint = joint_of(AutoregressiveInference)
    estimate = RWS(num_particles=4)(joint, data(5))
    assert estimate.surrogate.requires_grad


@pytest.mark.parametrize("kind", ["planar", "maf", "iaf", "coupling", "spline"])
def test_a_value_of_each_datum_is_scored_under_each_other(kind: str) -> None:
    known = registries()
    bits, normal = known["likelihood"]["bernoulli"](), known["likelihood"]["gaussian"]()
    model = known["model"]["flow"](kind=kind, num_latents=3)
    joint = scatter(model.build(known["prior"]["gaussian"]((3,)), bits, normal, torch.full((4,), 0.5)), 1, 0.1)
    q = joint.q((torch.rand(5, 4) < 0.5).double())
    tau = q.sample().unsqueeze(1)  # [5, 1, 3]
    got = q.log_prob(tau)
    assert got.shape == (5, 5)
    torch.testing.assert_close(got, q.log_prob(tau.expand(5, 5, 3).contiguous()), rtol=0, atol=1e-9)


@pytest.mark.parametrize("flow", FLOWS)
@torch.no_grad()
def test_it_can_be_made_less_sure_of_itself(flow: type[FlowInference]) -> None:
    made = scatter(joint_of(flow).q, 1, scale=0.3)(data(3))
    flat = flatten(made, 4.0)
    assert flat is not None
    (tau, log_q), (wide, log_flat) = draw(made, 4000), draw(flat, 4000)
    assert wide.shape == tau.shape
    assert (log_q - log_flat).mean() == pytest.approx(2 * math.log(4), abs=0.5)  # of two elements, but for the bends
    torch.testing.assert_close(flat.log_prob(wide), log_flat)
    assert (made.log_prob(wide) - log_flat).exp().mean() == pytest.approx(1.0, abs=0.2)  # both are normalized
    torch.testing.assert_close(flatten(made, 1.0).log_prob(tau), log_q)


@torch.no_grad()
def test_evaluation_looks_beyond_it() -> None:
    found = evaluate(scatter(joint_of(PlanarInference), 2, scale=0.3), data(100), num_particles=200)
    assert "a flattened q" in found.conclusion
