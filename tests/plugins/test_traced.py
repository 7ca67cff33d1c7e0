"""Estimators can be traced by Dynamo, whole, and say what they say without it. No compiler is needed for that."""

import pytest
import torch
from torch._dynamo.utils import counters

from unibound import JointBound, kernels, registries

QUICK = ("sgvb", "vimco")
SWEEPS = ("cd", "rws", "wake_sleep")
"""Those that move an RBM's states while they are called, which is never traced."""


def joint_of(prior: str, posterior: str, x: torch.Tensor) -> JointBound:
    plugins = registries()
    bits, model = plugins["likelihood"]["bernoulli"](), plugins["model"]["mlp"](num_latents=3, hidden=(4,), dropout=0.0)
    return model.build(plugins["prior"][prior]((3,)), bits, plugins["likelihood"][posterior](), x.mean(0))


def cases() -> list:
    """Every estimator with the latents that it takes; the quick ones first."""
    found = []
    for name in registries()["estimator"]:
        if name in ("fivo", "greedy"):  # of sequences, of layers
            continue
        slow = () if name in QUICK else pytest.mark.slow
        over = ("gaussian", "gaussian") if name in ("sgvb", "iwae") else ("rbm", "bernoulli")
        found.append(pytest.param(name, {}, over, marks=slow, id=name))
        if name in ("iwae", "vimco"):
            found.append(pytest.param(name, {"backward": "resampled"}, over, marks=pytest.mark.slow, id=f"{name} one"))
    return found


@pytest.mark.parametrize(("name", "options", "over"), cases())
def test_a_traced_estimator_has_the_same_surrogate_and_gradient(name: str, options: dict, over: tuple[str, str]):
    torch.manual_seed(0)
    x = (torch.rand(6, 5) < 0.5).float()
    estimator, joint = registries()["estimator"][name](**options), joint_of(*over, x)
    estimator.check(joint, x)
    joint.advance()
    kernels.leave_untraced()
    torch.compiler.reset()
    counters.clear()
    found = []
    for way in (estimator, torch.compile(estimator.__call__, backend="eager")):
        joint.auxiliary = None
        torch.manual_seed(1)
        joint.auxiliary = estimator.auxiliary(joint, x)
        value = way(joint, x).surrogate.mean()
        found.append([value.detach(), *torch.autograd.grad(value, list(joint.parameters()), materialize_grads=True)])
    torch.testing.assert_close(found[1], found[0])
    assert bool(counters["graph_break"]) == (name in SWEEPS)
