"""What tests of several pages do to a world."""

from collections.abc import Callable

import pytest
from torch import nn


@pytest.fixture
def fix() -> Callable[[nn.Module], None]:
    """Make buffers of all parameters of a module, so that nothing in it can be trained."""

    def fixed(whole: nn.Module) -> None:
        for name, parameter in list(whole.named_parameters()):
            owner, _, last = name.rpartition(".")
            module = whole.get_submodule(owner)
            delattr(module, last)
            module.register_buffer(last, parameter.detach())

    return fixed
