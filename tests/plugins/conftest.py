"""Data that tests of several plugins learn from."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def patterns(tmp_path: Path) -> Path:
    """Noisy copies of two patterns of 6 bits."""
    random = np.random.default_rng(0)
    rows = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 1, 0, 1, 1]])
    path = tmp_path / "patterns.npz"
    parts = {
        name: (rows[random.integers(2, size=count)] ^ (random.random((count, 6)) < 0.05)).astype(np.uint8)
        for name, count in {"train": 150, "valid": 20, "test": 20}.items()
    }
    np.savez(path, **parts)
    return path
