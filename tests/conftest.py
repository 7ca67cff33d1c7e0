"""What all tests share."""

from collections.abc import Iterator

import pytest
import torch

# These problems are too small to share: two threads on busy cores are slower than one.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _no_golden_setting() -> Iterator[None]:
    """The folder of the golden cases is known by now, and the program would take its variable for a setting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("UNIBOUND_GOLDEN_DIR", raising=False)
        yield
