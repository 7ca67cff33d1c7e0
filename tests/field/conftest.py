"""A folder of its own for every test, the command line in this process, and small joints whose NLL can be listed."""

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from running import Cli, called
from torch import Tensor

from unibound import JointBound, registries
from unibound.support import boolean
from unibound.testing.listing import all_states

Build = Callable[..., JointBound]


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own, under one seed, without the settings of whoever runs it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["unibound"])
    for name in os.environ:
        if name.startswith("UNIBOUND_"):
            monkeypatch.delenv(name)
    torch.manual_seed(0)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Call the command line in this process."""

    return partial(called, capsys)


@pytest.fixture
def run(cli: Cli) -> Callable[..., tuple[dict[str, Any], str]]:
    """Train in few words: the JSON document that came out, and what was said on stderr."""

    def call(data: Path | str, **flags: object) -> tuple[dict[str, Any], str]:
        chosen = {"data": data, "epochs": 1, "num_particles": 3, "validate_every": 1000, "run_dir": "run"}
        if "model" not in flags:  # the default one has so many latents that listing their states takes seconds
            chosen |= {"model__num_latents": 6}
        chosen |= flags
        words = [
            str(word)
            for name, value in chosen.items()
            for word in (f"--{name.replace('__', '.').replace('_', '-')}", value)
        ]
        result = cli("run", *words, "--json")
        assert result.code == 0, result.err
        return json.loads(result.out), result.err

    return call


@pytest.fixture
def npz() -> Callable[..., Path]:
    """Write rows [N, D] as a data file: 60% train, 20% valid, 20% test; with other arrays where they are named."""

    def write(x: np.ndarray, **arrays: Any) -> Path:
        a, b = len(x) * 6 // 10, len(x) * 8 // 10
        chosen: Any = {"train": x[:a], "valid": x[a:b], "test": x[b:]} | arrays
        np.savez("data.npz", **chosen)
        return Path("data.npz")

    return write


@pytest.fixture
def mlp() -> Build:
    """Build an untrained mlp for x [N, *X]; every weight is drawn wide, so that nothing is near zero."""

    def make(x: Tensor, prior: str = "rbm", likelihood: str = "bernoulli", latents: int = 4, **settings: Any):
        known = registries()
        made = known["prior"][prior]((latents,), **settings)
        over = next(one() for one in known["likelihood"].values() if one.support is made.support)
        model = known["model"]["mlp"](num_latents=latents, hidden=(8,), dropout=0.3)
        joint = model.build(made, known["likelihood"][likelihood](), over, x.mean(0))
        with torch.no_grad():
            for parameter in joint.parameters():
                parameter.add_(0.4 * torch.randn_like(parameter))
        return joint

    return make


@pytest.fixture
def listed() -> Callable[[JointBound, Tensor], float]:
    """The exact NLL of x under a joint over bits, normalized by listing every latent, in float64."""

    @torch.no_grad()
    def nll(joint: JointBound, x: Tensor) -> float:
        with joint.evaluating():
            prior: Any = joint.p.get_submodule("prior")
            states = all_states(boolean, tuple(prior.event_shape)).to(x.dtype)
            log_prior = prior.log_prob(states).double().log_softmax(0)  # [S]
            log_x = joint.p.conditional(states.unsqueeze(1)).log_prob(x).double()  # [S, N]
            return -(log_prior.unsqueeze(1) + log_x).logsumexp(0).mean().item()

    return nll


@pytest.fixture
def bits() -> Tensor:
    """Data with a pattern [200, 6]."""
    x = (torch.rand(200, 1) < 0.5).float().expand(-1, 6)
    return torch.where(torch.rand(200, 6) < 0.2, 1 - x, x)
