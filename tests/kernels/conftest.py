"""Backends to test: the reference and each twin that is installed, Triton interpreted where there is no GPU."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported, by the twin below

TWINS = {"compiled": "numba", "fused": "triton"}


@pytest.fixture(autouse=True)
def _no_gpu() -> None:
    """There may be one here."""


def load(name: str) -> ModuleType:
    if name in TWINS and find_spec(TWINS[name]) is None:
        pytest.skip(f"the {name} kernels need {TWINS[name]}, which is not installed")
    return importlib.import_module(f"unibound.kernels.{name}")


@pytest.fixture(params=["reference", "compiled", "fused"])
def backend(request: pytest.FixtureRequest) -> ModuleType:
    return load(request.param)


@pytest.fixture(params=["compiled", "fused"])
def twin(request: pytest.FixtureRequest) -> ModuleType:
    return load(request.param)


@pytest.fixture
def compiled() -> ModuleType:
    return load("compiled")


@pytest.fixture
def fused() -> ModuleType:
    return load("fused")


@pytest.fixture
def device() -> Callable[[ModuleType], str]:
    return lambda module: "cuda" if module.__name__.endswith("fused") and torch.cuda.is_available() else "cpu"
