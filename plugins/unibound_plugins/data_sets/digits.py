"""The small set every default runs on: 1797 real handwritten digits of 8 x 8 pixels, part of the package."""

from importlib.resources import as_file, files

import attrs
import numpy as np
import torch

from unibound import DataSet, Splits, hookimpl

_DARKEST = 16  # each pixel counts the ink dots of a 4 x 4 block


@attrs.frozen
class Digits(DataSet):
    """1797 handwritten digits of 8 x 8 pixels in 17 grey levels: 1437 to train, 180 to validate, 180 to test.

    The images are upright and ink is 1. They are those of scikit-learn's `load_digits`, shuffled once, with
    every class in the same proportion in each split, and frozen: the split is the same everywhere and needs
    neither scikit-learn nor a network.

    Source: E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits (the test set),
        UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0.
    """

    def load(self) -> Splits:
        """Read the images [N, 8, 8] that come with the package."""
        with as_file(files(__package__ or "") / "digits.npz") as path, np.load(path) as file:
            parts = {name: torch.from_numpy(file[name]) / _DARKEST for name in ("train", "valid", "test")}
            labels = {name: [str(label) for label in file[f"{name}_labels"]] for name in parts}
        return Splits(*parts.values(), source="digits", levels=_DARKEST + 1, labels=labels)


@hookimpl
def register_data_sets(register):
    register("digits", Digits)
