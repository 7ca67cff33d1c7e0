"""Weights averaged over the steps of a stage are what is looked at and kept for use, while the raw ones train on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Averages:
    """Exponential moving averages of the parameters that are trained; a decay of 0 averages nothing.

        a_t = d_t a_(t-1) + (1 - d_t) theta_t,   d_t = min(d, t / (t + 9))

    so that the first steps, whose weights are far from the later ones, are soon forgotten. Buffers are no weights:
    chains, means and counts stay as training left them.

    Args:
        module: whose parameters; those that are frozen when this is made are left alone.
        decay: d, in [0, 1).

    Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging" (1992).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.decay, self._raw = decay, trained if decay > 0 else {}
        self._values = [p.detach().clone() for p in self._raw.values()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step of the stage, counted from 1."""
        for average, raw in zip(self._values, self._raw.values(), strict=True):
            average.lerp_(raw, 1 - min(self.decay, step / (step + 9)))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Averages in the module for as long as it is looked at; then the raw weights are back, bit for bit."""
        raw = self.raw()
        self.settle()
        try:
            yield
        finally:
            self._set(list(raw.values()))

    def settle(self) -> None:
        """Make the averages the weights, as at the end of a stage."""
        self._set(self._values)

    def raw(self) -> dict[str, Tensor]:
        """Copies of the weights that training goes on with, by name, where they are not the averages."""
        return {name: p.detach().clone() for name, p in self._raw.items()}

    def restore(self, raw: dict[str, Tensor]) -> None:
        """Take what the module holds for the averages, and put the raw weights back.

        Raises:
            ValueError: raw weights of other parameters.
        """
        if raw.keys() != self._raw.keys() or any(raw[name].shape != p.shape for name, p in self._raw.items()):
            raise ValueError("the raw weights are not those of the parameters that are averaged")
        self._values = [p.detach().clone() for p in self._raw.values()]
        self._set([raw[name] for name in self._raw])

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self._raw.values(), values, strict=True):
            parameter.copy_(value)
