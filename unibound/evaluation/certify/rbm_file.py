"""Anybody's RBM, and the data to judge it by, from files.

A file may be read in more than one way: a square W goes both ways round, and weights of spins look like those of bits.
What it says is taken as it stands; the other readings are handed over too, so that data can speak against it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from unibound import support
from unibound.data.files import read_splits
from unibound.energies.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.evaluation.certify.arrays import read_weights
from unibound.settings.defaults import BITS, CATEGORIES, REALS, SPINS, rbm

WEIGHTS = ("W", "vbias", "hbias")
ROUNDING = 0.01
"""Nats that rounding may cost."""
_CURE = "write it with np.savez(file, W=..., vbias=..., hbias=...), W as [visible, hidden]"


@attrs.frozen(eq=False)
class Weights:
    """W [V, H], vbias [V] and hbias [H] of an RBM over bits, float64.

    An energy of E(v, h) = -v'Wh - vbias'v - hbias'h.
    """

    weight: Tensor
    visible_bias: Tensor
    hidden_bias: Tensor

    @property
    def transposed(self) -> "Weights":
        """Those of a square W that was saved as [hidden, visible]."""
        return attrs.evolve(self, weight=self.weight.mT.contiguous())

    @property
    def exchanged(self) -> "Weights":
        """Those of a square W whose biases were saved under each other's names."""
        return attrs.evolve(self, visible_bias=self.hidden_bias, hidden_bias=self.visible_bias)

    @property
    def of_bits(self) -> "Weights":
        """These, if they are over spins, as those of an RBM over bits (1 + spin) / 2 of the same probabilities.

        4 W, 2 (vbias - W 1), 2 (hbias - W'1), and a log Z that is less by sum W - sum vbias - sum hbias.
        """
        weight, visible, hidden = self.weight, self.visible_bias, self.hidden_bias
        return Weights(4 * weight, 2 * (visible - weight.sum(1)), 2 * (hidden - weight.sum(0)))

    @property
    def of_spins(self) -> "Weights":
        """These, if they are over bits, as those of an RBM over spins 2 bit - 1 of the same probabilities."""
        weight = self.weight / 4
        visible, hidden = self.visible_bias / 2 + weight.sum(1), self.hidden_bias / 2 + weight.sum(0)
        return Weights(weight, visible, hidden)

    @property
    def magnitude(self) -> float:
        """About how large the sums in a free energy get."""
        biases = self.visible_bias.abs().sum() + self.hidden_bias.abs().sum()
        return (biases + self.weight.norm() * sum(self.weight.shape) ** 0.5).item()

    @property
    def prior(self) -> EnergyPrior:
        """The RBM, in float64 where float32 would cost more than a hundredth of a nat."""
        wide = torch.finfo(torch.float32).eps * self.magnitude > ROUNDING
        kind: Any = rbm(BITS)
        return kind.from_weights(*attrs.astuple(self), dtype=torch.float64 if wide else torch.float32)


def read_rbm(
    path: Path, unit: str = BITS, say: Callable[[str], object] = lambda said: None
) -> tuple[EnergyPrior, dict[str, EnergyPrior]]:
    """Read an RBM, and what else the file may mean, by what would have been done to the weights.

    Args:
        path: a file as `read_weights` understands it.
        unit: what the visible units are: bits, spins, gaussian (with their standard deviations, sigma) or potts
            (categories, W [visible, categories, hidden]).
        say: told which arrays were taken for which parts, where their names are others.

    Raises:
        UsageError: an array that is missing, unknown, of the wrong shape or kind, not finite, or too large to compute.
    """
    return machine(read_weights(path, _CURE, unit, say), unit, path)


def machine(arrays: Mapping[str, np.ndarray], unit: str, who: Path | str) -> tuple[EnergyPrior, dict[str, EnergyPrior]]:
    """The same of arrays under the names of `arrays.NAMES`, which errors say are `who`'s."""
    kind: Any = rbm(unit)
    needed = (*WEIGHTS, "sigma") if unit == REALS else WEIGHTS
    for name in needed:
        if name not in arrays:
            raise UsageError(f"{who}: no array {name!r} among {', '.join(arrays) or 'none'}; {_CURE}")
    if more := ", ".join(sorted(arrays.keys() - set(needed))):
        raise UsageError(
            f"{who}: holds {more} besides {', '.join(needed[:-1])} and {needed[-1]}, and an RBM over {unit} has no "
            "place for it; work offsets and scales into the weights, and leave out what does not matter"
        )
    if unit in (REALS, CATEGORIES):
        return _of_reals(who, arrays, kind) if unit == REALS else (_of_categories(who, arrays, kind), {})
    weights = Weights(*_tensors(who, arrays))
    if unit == SPINS:
        _require_narrow(who, weights)
        spins = kind.from_weights(*attrs.astuple(weights))
        return spins, {"weights of bits": kind.from_weights(*attrs.astuple(weights.of_spins))}
    others = {"weights of spins": weights.of_bits}
    if weights.weight.shape[0] == weights.weight.shape[1]:
        others |= {
            "a transposed W": weights.transposed,
            "exchanged biases": weights.exchanged,
            "a transposed W and exchanged biases": weights.transposed.exchanged,
        }
    return weights.prior, {name: other.prior for name, other in others.items()}


def _of_reals(
    who: Path | str, arrays: Mapping[str, np.ndarray], kind: Any
) -> tuple[EnergyPrior, dict[str, EnergyPrior]]:
    """An RBM of real visible units; its W may be divided by their variance or by their standard deviation."""
    weights = Weights(*_tensors(who, arrays))
    _require_narrow(who, weights)
    sigma = torch.from_numpy(np.broadcast_to(arrays["sigma"].astype(np.float64), weights.visible_bias.shape).copy())
    if not bool((sigma > 0).all() and sigma.isfinite().all()):
        raise UsageError(f"{who}: sigma must be positive numbers; give standard deviations, not their logarithms")
    made = {name: kind.from_weights(*attrs.astuple(weights), sigma, convention=name) for name in ("variance", "scale")}
    return made["variance"], {"a W that is divided by sigma, not by its square": made["scale"]}


def _of_categories(who: Path | str, arrays: Mapping[str, np.ndarray], kind: Any) -> EnergyPrior:
    weight, visible, hidden = (torch.from_numpy(arrays[name].astype(np.float64)) for name in WEIGHTS)
    if weight.dim() != 3 or visible.shape != weight.shape[:2] or hidden.shape != weight.shape[2:]:
        shapes = f"W {list(weight.shape)}, vbias {list(visible.shape)} and hbias {list(hidden.shape)}"
        raise UsageError(f"{who}: {shapes} do not fit; write W as [visible, categories, hidden]")
    if not all(bool(x.isfinite().all()) for x in (weight, visible, hidden)):
        raise UsageError(f"{who}: values that overflowed or are not numbers")
    return kind.from_weights(weight, visible, hidden)


def _require_narrow(who: Path | str, weights: Weights) -> None:
    if torch.finfo(torch.float32).eps * weights.magnitude > ROUNDING:
        raise UsageError(f"{who}: holds values too large for float32, in which these units are computed; rescale them")


def _tensors(who: Path | str, arrays: Mapping[str, np.ndarray]) -> list[Tensor]:
    for name in WEIGHTS:
        if arrays[name].dtype.kind not in "iuf":
            raise UsageError(f"{who}: {name} holds {arrays[name].dtype}, not real numbers; {_CURE}")
    weight, biases = arrays["W"], [arrays[name] for name in WEIGHTS[1:]]
    shapes = f"W {list(weight.shape)}, vbias {list(biases[0].shape)} and hbias {list(biases[1].shape)}"
    sizes = tuple(bias.size for bias in biases)
    lists = all(bias.size == max(bias.shape, default=1) for bias in biases)  # rows and columns are lists, too
    if weight.ndim != 2 or 0 in sizes or not lists or weight.shape != sizes:
        cure = "transpose W" if weight.ndim == 2 and weight.shape == sizes[::-1] else _CURE
        raise UsageError(f"{who}: {shapes} do not fit; {cure}")
    tensors = [torch.from_numpy(array.astype(np.float64)) for array in (weight, *(bias.reshape(-1) for bias in biases))]
    for name, tensor in zip(WEIGHTS, tensors, strict=True):
        if not tensor.isfinite().all():
            raise UsageError(f"{who}: {name} holds values that overflowed or are not numbers")
    if torch.finfo(torch.float64).eps * Weights(*tensors).magnitude > ROUNDING:
        largest = max(WEIGHTS, key=lambda name: float(np.abs(arrays[name]).max()))
        raise UsageError(f"{who}: {largest} holds values too large to be computed with; was the model diverging?")
    return tensors


def read_data(path: Path, unit: str = BITS) -> tuple[Tensor, Tensor | None]:
    """Read `test` [N, *X], and `train` where there is one, as float32, for visible units of a kind.

    Raises:
        UsageError: no test data, or data that are no numbers, or no bits.
    """
    cure = "write it with np.savez(file, test=...), optionally train=..., bits as [N, pixels...]"
    splits, _ = read_splits(path, cure, ("test",))
    found = {name: x[:] for name, x in splits.items()}
    for name, x in found.items():
        if not len(x):
            raise UsageError(f"{path}: {name} is empty; {cure}")
        require_visible(x, unit, f"{path}: {name}")
    return found["test"], found.get("train")


def require_visible(x: Tensor, unit: str, who: str) -> None:
    """Raise UsageError, naming whose they are, for data [N, *X] that cannot be those of bits."""
    if unit != BITS:
        return
    if bool((x < 0).any()) and bool(support.spin.check(x).all()):
        raise UsageError(
            f"{who} holds spins, -1 and 1, but the RBM is over bits. Was it trained on spins, convert the "
            "weights, to 4 W, 2 (vbias - W 1) and 2 (hbias - W' 1) by the old W, and the data, to (1 + x) / 2; "
            "likelihoods stay as they are. Was it trained on bits, convert the data alone"
        )
    if not (inside := support.boolean.check(x)).all():
        raise UsageError(
            f"{who} holds {x[~inside][0].item():.3g}, but an RBM over bits gives such data no likelihood, "
            "and others made of them are not they; give the zeros and ones that it is to be judged by"
        )
