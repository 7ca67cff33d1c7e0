"""Hypothesis strategies for what the laws quantify over. Needs the extra `test`."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from unibound.testing.conformance import variants
from unibound.testing.priors import Rates, Table
from unibound.testing.worlds import World

LARGEST = 1e4
"""Log-weights of a model that is much too sure of itself, in nats."""


@st.composite
def log_weights(draw: st.DrawFn, min_particles: int = 2, max_particles: int = 6, largest: float = LARGEST) -> Tensor:
    """Log-weights [K, B], float64, in nats; often with ties and with one that dwarfs the others."""
    k, batch = draw(st.integers(min_particles, max_particles)), draw(st.integers(1, 4))
    value = st.one_of(st.floats(-largest, largest), st.floats(-5, 5), st.sampled_from([-largest, 0.0, largest]))
    rows = draw(st.lists(st.lists(value, min_size=batch, max_size=batch), min_size=k, max_size=k))
    return torch.tensor(rows, dtype=torch.float64)


@st.composite
def rbm_parameters(draw: st.DrawFn, max_units: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Weight [V, H], visible bias [V] and hidden bias [H] of a small RBM, float64."""
    num_visible, num_hidden = draw(st.integers(1, max_units)), draw(st.integers(1, max_units))
    random = torch.Generator().manual_seed(draw(seeds()))
    scale = draw(st.floats(0.1, 3.0))
    shapes = ((num_visible, num_hidden), (num_visible,), (num_hidden,))
    weight, visible, hidden = (scale * torch.randn(s, generator=random, dtype=torch.float64) for s in shapes)
    return weight, visible, hidden


def seeds() -> st.SearchStrategy[int]:
    """Seeds of a generator."""
    return st.integers(0, 2**31 - 1)


def worlds() -> st.SearchStrategy[World]:
    """Worlds of bits, their prior normalized or not."""
    priors = st.sampled_from([Rates, Table])
    return st.builds(lambda seed, prior: World.of_bits(seed, prior((2,))), seeds(), priors)


def settings_of(plugin: type) -> st.SearchStrategy[Any]:
    """Instances of a plugin: its defaults, and every choice of a setting that has choices."""
    return st.sampled_from(list(variants(plugin).values())).map(lambda make: make())
