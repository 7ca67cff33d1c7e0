"""What all tests share: none hangs on how fast a machine is, or on which test ran before."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


@pytest.fixture
def golden() -> Callable[[str], dict[str, Any]]:
    """Read a golden case: exact numbers, computed by enumeration or with 60 digits."""

    def read(case: str) -> dict[str, Any]:
        return json.loads((Path(__file__).parent / "golden" / f"{case}.json").read_text())

    return read
