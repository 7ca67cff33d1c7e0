"""The Boltzmann machines of the cases, as the library has them."""

from typing import Any

import pytest
import torch
from golden import tensor
from torch import Tensor

from unibound import EnergyPrior

RBM = pytest.importorskip("unibound_plugins.priors.rbm").RBM


class Played(RBM):
    """An RBM whose chains go where they are told: through the states of a script, whatever the temperature."""

    # Those of the RBM itself are one loop each, with moves of their own.
    anneal, contrast = EnergyPrior.anneal, EnergyPrior.contrast

    def play(self, script: Tensor) -> None:
        """Begin and go on through states [N, M, V]."""
        self.script = iter(script)

    def base_sample(self, count: int) -> Tensor:
        return next(self.script)

    def gibbs(self, tau: Tensor, steps: int, beta: float = 1.0) -> Tensor:
        for _ in range(steps):
            tau = next(self.script)
        return tau


def machine(values: dict[str, Any], base_bias: Any = None, kind: type[RBM] = RBM) -> RBM:
    """The RBM of W [V, H], b [V] and c [H] in float64, to be evaluated; annealed from independent bits."""
    weight, visible, hidden = (tensor(values[name]) for name in "Wbc")
    rbm = kind((len(visible),), num_hidden=len(hidden)).double().eval()
    state = {"weight": weight, "visible_bias": visible, "hidden_bias": hidden}
    base = {} if base_bias is None else {"base_bias": tensor(base_bias)}
    rbm.load_state_dict(state | base, strict=False)
    return rbm


def upside_down(values: dict[str, Any]) -> dict[str, Any]:
    """The same machine with its hidden units for visible ones."""
    return {"W": tensor(values["W"]).T.tolist(), "b": values["c"], "c": values["b"]}


def deep_machine(weights: Any, biases: Any, base_bias: Any = None) -> Any:
    """The deep machine of weights between layers and biases of each, in float64, its chains moved once.

    Annealed from independent bits with the logits `base_bias` in the lowest layer, and fair coins elsewhere.
    """
    kind = pytest.importorskip("unibound_plugins.priors.dbm").DBM
    sizes = [len(bias) for bias in biases]
    dbm = kind((sizes[0],), hidden=tuple(sizes[1:]), num_chains=4).double()
    with torch.no_grad():
        for own, value in zip((*dbm.weights, *dbm.biases), (*weights, *biases), strict=True):
            own.copy_(tensor(value))
        if base_bias is not None:
            dbm.base_bias[: sizes[0]] = tensor(base_bias)
    dbm.advance()
    return dbm
