"""Model and prior `flow`: one pass, what is undone, exact likelihoods, and what is refused."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import called, refused
from torch import Tensor
from torch.distributions import Independent, Normal, Transform, constraints

pytest.importorskip("zuko")

from unibound_plugins.estimators.sgvb import SGVB
from unibound_plugins.likelihoods.bernoulli import Bernoulli
from unibound_plugins.likelihoods.gaussian import Gaussian
from unibound_plugins.models.flow import Flow as FlowModel
from unibound_plugins.models.identity import Identity
from unibound_plugins.priors.flow import Flow as FlowPrior
from unibound_plugins.priors.gaussian import Gaussian as Normals

from unibound import JointBound, Prior, UsageError
from unibound.distributions.flows import Flow, Gated, Planar
from unibound.evaluation.evaluate import evaluate
from unibound.settings import sources
from unibound.testing import Law, examine_prior
from unibound.testing.laws.model import Subject, draws_are_scored, draws_follow_log_prob
from unibound.testing.listing import scatter

zuko: Any = pytest.importorskip("zuko")
KINDS = ["planar", "maf", "iaf", "coupling", "spline"]


def built(kind: str, num_latents: int = 3) -> JointBound:
    torch.manual_seed(1)
    model = FlowModel(num_latents=num_latents, hidden=(8,), kind=kind, flow_hidden=(8,), context=4)
    joint = model.build(Normals((num_latents,)), Bernoulli(), Gaussian(), torch.full((5,), 0.3))
    return scatter(joint, 1, scale=0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_determinant_is_that_of_the_map(kind: str) -> None:
    flow = built(kind).q(torch.ones(1, 5).double()).flow.transform.inv
    z = torch.tensor([[0.3, -1.2, 0.6]]).double()
    tau, bent = flow.call_and_ladj(z)
    jacobian = torch.autograd.functional.jacobian(lambda z: flow(z).squeeze(0), z).squeeze(1)
    torch.testing.assert_close(bent, jacobian.slogdet().logabsdet.unsqueeze(0))
    torch.testing.assert_close(flow.inv(tau), z)


@pytest.mark.parametrize(("kind", "passes"), [("iaf", 1), ("coupling", 1), ("maf", 3)])
def test_passes_that_a_step_takes(kind: str, passes: int) -> None:
    joint, calls = built(kind), []
    for module in joint.q.modules():
        if hasattr(module, "hyper"):
            module.hyper.register_forward_hook(lambda *_: calls.append(1))
    SGVB()(joint, torch.ones(2, 5).double()).surrogate.mean().backward()
    # What is undone is scored by one pass more.
    assert len(calls) == 2 * (passes + (kind == "maf"))


class WrongSign(Gated):
    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return -super().log_abs_det_jacobian(x, y)


class Forgotten(Transform):
    """Twice z, and says that it leaves volumes alone."""

    domain = codomain = constraints.real
    bijective = True

    def _call(self, x: Tensor) -> Tensor:
        return 2 * x

    def _inverse(self, y: Tensor) -> Tensor:
        return y / 2

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(x)


def bent(layer: Callable[[], Transform]) -> type[Prior]:
    """A prior of one element that is bent so."""

    class Bent(FlowPrior):
        def flat(self) -> Flow:
            base = Independent(Normal(self.mean, torch.ones_like(self.mean)), 1)
            return Flow(base, [layer()])

    return Bent


@pytest.mark.parametrize(
    "layer", [lambda: WrongSign(torch.tensor([0.3]).double(), torch.tensor([-1.0]).double()), Forgotten]
)
def test_a_flow_with_a_wrong_determinant_dies(layer: Callable[[], Transform]) -> None:
    assert "normalized" in {verdict.law for verdict in examine_prior(bent(layer)) if not verdict.held}


def test_a_flow_with_a_right_one_does_not() -> None:
    right = bent(lambda: Gated(torch.tensor([0.3]).double(), torch.tensor([-1.0]).double()))
    assert "normalized" not in {verdict.law for verdict in examine_prior(right) if not verdict.held}


@pytest.mark.parametrize(
    ("kind", "where", "name"),
    [
        ("planar", Planar, "call_and_ladj"),
        ("iaf", Gated, "log_abs_det_jacobian"),
        ("maf", zuko.transforms.MonotonicAffineTransform, "log_abs_det_jacobian"),
    ],
)
def test_a_posterior_of_the_wrong_sign_dies(
    kind: str, where: type[Transform], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the draw as in log_prob, so that these agree with one another: it draws what it does not score."""
    make = functools.partial(FlowModel, num_latents=2, hidden=(4,), kind=kind, flow_hidden=(4,), context=2)
    subject, follow, scored = Subject.of(make), Law.of(draws_follow_log_prob), Law.of(draws_are_scored)
    assert follow.judge(lambda: subject).held
    right = getattr(where, name)

    def wrong(*parts: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        found = right(*parts)
        return (found[0], -found[1]) if isinstance(found, tuple) else -found

    monkeypatch.setattr(where, name, wrong)
    assert scored.judge(lambda: subject).held
    assert not follow.judge(lambda: subject).held


def test_with_identity_its_likelihood_is_exact() -> None:
    prior = scatter(FlowPrior((2,)), 1, scale=0.3)
    joint = Identity().build(prior, Gaussian(), Gaussian(), torch.zeros(2)).double()
    x = torch.tensor([[0.2, -1.0], [1.5, 0.3]]).double()
    found = evaluate(joint, x, num_particles=3)
    assert found.side == "equal"
    assert found.nll == pytest.approx(-prior.log_prob(x).mean().item(), abs=1e-9)


def test_a_flow_can_be_the_identity_of_no_layers() -> None:
    model = FlowModel(num_latents=2, hidden=(4,), num_layers=0)
    joint = model.build(Normals((2,)), Bernoulli(), Gaussian(), torch.full((5,), 0.3))
    assert isinstance(joint.q(torch.ones(1, 5)), Independent)


def data(folder: Path) -> Path:
    x = (np.random.default_rng(0).random((30, 4)) < 0.4).astype(np.float32)
    np.savez(folder / "data.npz", train=x[:20], valid=x[20:25], test=x[25:])
    return folder / "data.npz"


@pytest.mark.parametrize("flags", [["--model", "flow", "--prior", "gaussian"], ["--prior", "flow"]])
def test_without_zuko_the_extra_is_named(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "zuko", None)
    words = ["--data", data(tmp_path), *flags, "--estimator", "sgvb", "--run-dir", tmp_path / "run"]
    refused(called(capsys, "run", *words), "pip install 'unibound[flows]'")


@pytest.mark.parametrize(
    ("values", "culprit"),
    [
        ({"model": "flow", "prior": "bernoulli"}, "flow bends reals"),
        ({"model": {"name": "flow", "num_layers": -1}}, "num_layers: must be"),
        ({"model": {"name": "flow", "kind": "radial"}}, "unknown choice 'radial'"),
    ],
)
def test_what_cannot_flow_is_refused(values: dict, culprit: str, tmp_path: Path) -> None:
    from unibound.runs.build import build

    with pytest.raises(UsageError, match=culprit):
        build(sources.resolve([sources.Layer(values)]), torch.zeros(4, 3))
