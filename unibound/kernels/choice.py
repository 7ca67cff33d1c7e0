"""Who computes an op: what each twin of the reference says it can do, and which of them is asked."""

import importlib
import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import attrs
import torch
from torch import Tensor

from unibound.kernels import reference

SWEEPS = ("rbm_ais", "rbm_contrast", "rbm_gibbs", "rbm_reverse_ais")
MANY = 2**17
"""Logits from which on a compiler is worth its import."""


@attrs.frozen
class Twin:
    """A module beside the reference that computes some of its ops faster.

    Args:
        name: of the module.
        needs: package it is compiled by; it is imported, and so is the package, when the twin is first asked.
        can: whether it computes an op for tensors like one.
        suits: whether tensors like one are what it is made for.
    """

    name: str
    needs: str
    can: Callable[[str, Tensor], bool]
    suits: Callable[[Tensor], bool]


def _fused_can(op: str, like: Tensor) -> bool:
    # Sweeps are float32 kernels; float64 is what the reference is for, also where a twin is forced.
    dtypes = (torch.float32,) if op in SWEEPS else (torch.float32, torch.float64)
    runs = like.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
    return op != "rbm_free_energy" and runs and like.dtype in dtypes


def _compiled_can(op: str, like: Tensor) -> bool:
    large = op.startswith("rbm_") or (op == "bernoulli_log_prob" and like.numel() > MANY)
    return large and like.dtype == torch.float32 and like.device.type == "cpu"


TWINS = (
    Twin("fused", "triton", _fused_can, suits=lambda like: like.is_cuda),
    Twin("compiled", "numba", _compiled_can, suits=lambda like: not like.is_cuda),
)


def backend(op: str, like: Tensor) -> ModuleType:
    """The module that computes `op` for tensors like this one: the forced twin, or that for its device, if it can.

    Raises:
        ValueError: UNIBOUND_KERNELS names nobody.
        ImportError: it names a twin whose package is not installed.
    """
    if torch.compiler.is_compiling():  # which makes kernels of its own, and of more than one op
        return reference
    forced = os.environ.get("UNIBOUND_KERNELS", "")
    if forced == "reference":
        return reference
    twin = next((twin for twin in TWINS if (twin.name == forced if forced else twin.suits(like))), None)
    if twin is None:
        names = ", ".join(["reference", *(twin.name for twin in TWINS)])
        raise ValueError(f"UNIBOUND_KERNELS is {forced!r}, but must be one of {names}")
    if forced and not installed(twin.needs):
        raise ImportError(f"UNIBOUND_KERNELS={forced} needs {twin.needs}, which is not installed")
    return load(twin.name) if twin.can(op, like) and installed(twin.needs) else reference


@cache
def installed(package: str) -> bool:
    """Whether a package can be imported; it is not."""
    return find_spec(package) is not None


@cache
def load(twin: str) -> ModuleType:
    """Import a twin."""
    return importlib.import_module(f"unibound.kernels.{twin}")
