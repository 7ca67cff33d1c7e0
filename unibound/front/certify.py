"""`certify`: an interval for a likelihood, from weights that were trained anywhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from unibound.energies.energy import EnergyPrior
from unibound.errors import UsageError
from unibound.evaluation.certify import Certificate
from unibound.evaluation.certify import certify as certify_prior
from unibound.evaluation.certify.arrays import named
from unibound.evaluation.certify.rbm_file import machine, read_rbm, require_visible
from unibound.front.arrays import rows_of


def certify(
    rbm: EnergyPrior | Mapping[str, Any] | Path | str,
    test: Any,
    *,
    train: Any = None,
    unit: str = "bits",
    **options: Any,
) -> Certificate:
    """Certify or refuse the log-likelihood of data under a restricted Boltzmann machine, or any energy.

    Args:
        rbm: arrays or tensors W [V, H], vbias [V], hbias [H] and, of reals, sigma, by name; a file of them, as
            `unibound certify --rbm` takes; or an energy itself.
        test: data [N, *X] it is judged by: an array, a tensor, or a data set of torch.
        train: data it was trained on, which annealing may begin at; the test data by default.
        unit: what visible units are: bits, spins, gaussian or potts. An energy knows.
        options: of `unibound.evaluation.certify.certify`, as num_chains, temperatures and seed.

    Returns:
        A certificate, whose verdict is `certified` or `refused`, with log Z and the mean test log-likelihood in nats.

    Raises:
        UsageError: weights or data that do not fit, or are none.
    """
    data = {name: rows_of(x, name)[:] for name, x in (("test", test), ("train", train)) if x is not None}
    if isinstance(rbm, EnergyPrior):
        prior, others = rbm, {}
    else:
        for name, x in data.items():
            require_visible(x, unit, name)
        prior, others = read_rbm(Path(rbm), unit) if isinstance(rbm, str | Path) else _of_arrays(rbm, unit)
    return certify_prior(prior, data["test"], train=data.get("train"), others=others, **options)


def _of_arrays(arrays: Mapping[str, Any], unit: str) -> tuple[EnergyPrior, dict[str, EnergyPrior]]:
    if not isinstance(arrays, Mapping):
        raise UsageError(f"rbm must be arrays by name, a path or an energy, not {type(arrays).__name__}")
    found = {
        str(name): x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x) for name, x in arrays.items()
    }
    return machine(named(found, "rbm"), unit, "rbm")
