"""Who computes: forced by the environment, else by device, dtype and availability; nothing imported early."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from unibound.kernels import choice, reference


@pytest.fixture
def choose(monkeypatch):
    def choose(op="rbm_ais", *, forced="", installed=(), dtype=torch.float32, device="cpu"):
        monkeypatch.setenv("UNIBOUND_KERNELS", forced)
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        monkeypatch.setattr(choice, "installed", lambda package: package in installed)
        monkeypatch.setattr(choice, "load", lambda name: name)
        like = SimpleNamespace(
            dtype=dtype, is_cuda=device == "cuda", device=SimpleNamespace(type=device), numel=lambda: 1
        )
        return choice.backend(op, like)

    return choose


def test_reference_where_nothing_is_installed(choose):
    assert choose() is reference
    assert choose(device="cuda") is reference


def test_the_fastest_that_can(choose):
    both = ("triton", "numba")
    assert choose(installed=both) == "compiled"
    assert choose(installed=both, device="cuda") == "fused"
    assert choose(installed=both, dtype=torch.float64) is reference
    assert choose("rbm_free_energy", installed=both) == "compiled"
    assert choose("rbm_free_energy", installed=both, device="cuda") is reference
    assert choose("rbm_contrast", installed=both) == "compiled"
    assert choose("rbm_contrast", installed=both, device="cuda") == "fused"
    assert choose("leave_one_out", installed=both) is reference
    assert choose("bernoulli_log_prob", installed=both) is reference  # too few to import a compiler for
    assert choose("leave_one_out", installed=both, device="cuda", dtype=torch.float64) == "fused"
    assert choose("rbm_ais", installed=both, device="cuda", dtype=torch.float64) is reference


def test_the_environment_forces(choose):
    both = ("triton", "numba")
    assert choose(installed=both, device="cuda", forced="reference") is reference
    assert choose(installed=both, forced="compiled") == "compiled"
    with pytest.raises(ImportError, match="needs triton"):
        choose(forced="fused", device="cuda")
    with pytest.raises(ValueError, match="UNIBOUND_KERNELS"):
        choose(forced="fast")


def test_importing_the_kernels_imports_no_compiler():
    code = "import sys, unibound.kernels; print({'triton', 'numba'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
