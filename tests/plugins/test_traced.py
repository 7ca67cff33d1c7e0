"""Estimators can be traced by Dynamo, and say what they say without it. No compiler is needed for that."""

import pytest
import torch

from unibound import registries


@pytest.mark.parametrize("backward", ["all", pytest.param("resampled", marks=pytest.mark.slow)])
def test_a_traced_estimator_has_the_same_surrogate_and_gradient(backward: str) -> None:
    torch.manual_seed(0)
    plugins, x = registries(), (torch.rand(6, 5) < 0.5).float()
    bits = plugins["likelihood"]["bernoulli"]()
    model = plugins["model"]["mlp"](num_latents=3, hidden=(4,), dropout=0.0)
    joint = model.build(plugins["prior"]["bernoulli"]((3,)), bits, bits, x.mean(0))
    vimco = plugins["estimator"]["vimco"](num_particles=3, backward=backward)

    def surrogate(x: torch.Tensor) -> torch.Tensor:
        return vimco(joint, x).surrogate.mean()

    found = []
    for way in (surrogate, torch.compile(surrogate, backend="eager")):
        torch.manual_seed(1)
        value = way(x)
        found.append([value.detach(), *torch.autograd.grad(value, list(joint.parameters()))])
    torch.testing.assert_close(found[1], found[0])
