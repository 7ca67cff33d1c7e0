"""What all tests share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

# These problems are too small to share: two threads on busy cores are slower than one.
torch.set_num_threads(1)


@pytest.fixture
def golden() -> Callable[[str], dict[str, Any]]:
    """Read a golden case: exact numbers, computed by enumeration or with 60 digits."""

    def read(case: str) -> dict[str, Any]:
        return json.loads((Path(__file__).parent / "golden" / f"{case}.json").read_text())

    return read
