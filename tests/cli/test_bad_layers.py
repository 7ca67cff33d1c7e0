"""Layers that do not fit are refused in one line, before anything is written."""

from pathlib import Path
from typing import Any

import pytest
from running import Cli, Words, refused

WITHOUT = ("estimator", "prior", "model", "partition")
LADDER = {"model": "ladder", "model.sizes": "4,3"}


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (LADDER | {"model.hidden": "4", "prior": "gaussian", "estimator": "sgvb"}, "give one for each of sizes"),
        (LADDER | {"model.hidden": "4,4", "prior": "bernoulli", "estimator": "sgvb"}, "latents over reals"),
        ({"model": "sbn", "model.sizes": "0,3", "prior": "bernoulli", "estimator": "vimco"}, "--model.sizes: must be"),
    ],
    ids=["widths that do not fit", "a prior of another support on top", "a layer of nothing"],
)
def test_is_refused(cli: Cli, tiny: Words, flags: dict[str, Any], part: str) -> None:
    refused(cli(*tiny(without=WITHOUT, **flags)), part)
    assert not Path("run").exists()
