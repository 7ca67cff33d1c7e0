"""What all tests share: none hangs on how fast a machine is, or on which test ran before."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

# These problems are too small to share: two threads on busy cores are slower than one.
torch.set_num_threads(1)

# The same examples everywhere, and as long as they take.
settings.register_profile(
    "anywhere", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("anywhere")


@pytest.fixture(autouse=True)
def _draws_of_its_own() -> None:
    """A test draws the same alone as among others."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test says is the same on a machine with a GPU, which only those of kernels look for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # of processes that a test begins


@pytest.fixture(autouse=True, scope="session")
def _no_power_cut() -> Iterator[None]:
    """Nothing waits for a disk, which takes longer than a small run; `core/test_disk.py` holds what is flushed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_golden_setting() -> Iterator[None]:
    """The folder of the golden cases is known by now, and the program would take its variable for a setting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("UNIBOUND_GOLDEN_DIR", raising=False)
        yield
