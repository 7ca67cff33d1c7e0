"""`unibound.certify`: weights from anywhere, in memory; the certificate of the same file, and its refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unibound
from unibound import EnergyPrior, UsageError, registries
from unibound.evaluation.certify import certify as certify_prior
from unibound.evaluation.certify.rbm_file import read_rbm
from unibound.partition import enumeration

QUICK: dict[str, Any] = {"num_chains": 40, "temperatures": 200, "num_steps": 100, "raise_cases": 10}


@pytest.fixture(scope="module")
def machine() -> EnergyPrior:
    torch.manual_seed(1)
    return registries()["prior"]["rbm"].from_weights(torch.randn(6, 4), torch.randn(6) / 2, torch.randn(4) / 2)


@pytest.fixture(scope="module")
def arrays(machine: EnergyPrior) -> dict[str, np.ndarray]:
    names = zip(("W", "vbias", "hbias"), machine.parameters(), strict=True)
    return {name: parameter.detach().numpy() for name, parameter in names}


@pytest.fixture(scope="module")
def test(machine: EnergyPrior) -> np.ndarray:
    return enumeration.draw(machine, 300).numpy()


def test_it_is_certified_as_from_a_file(machine, arrays, test, tmp_path: Path) -> None:
    np.savez(tmp_path / "rbm.npz", **arrays)
    prior, others = read_rbm(tmp_path / "rbm.npz")
    expected = certify_prior(prior, torch.from_numpy(test), others=others, **QUICK)
    theirs = {
        "components_": arrays["W"].T,
        "intercept_visible_": arrays["vbias"],
        "hbias": torch.tensor(arrays["hbias"]),
    }
    for given in (arrays, theirs, tmp_path / "rbm.npz", str(tmp_path / "rbm.npz")):
        found = unibound.certify(given, test, **QUICK)
        assert (found.verdict, found.log_z, found.test_ll) == ("certified", expected.log_z, expected.test_ll)
    found = unibound.certify(machine, torch.from_numpy(test).bool(), train=test.tolist(), **QUICK)
    exact = (-machine.free_energy(torch.from_numpy(test)).double() - enumeration.log_sum(machine)).mean().item()
    assert found.test_ll_low is not None
    assert found.test_ll_high is not None
    assert found.test_ll_low - 0.01 < exact < found.test_ll_high + 0.01


MISTAKES = {
    "another shape": (lambda a, x: (a | {"W": a["W"].T}, x), "rbm: W .* do not fit; transpose W"),
    "too much": (lambda a, x: (a | {"offset": a["vbias"]}, x), "rbm: holds offset besides"),
    "too little": (lambda a, x: ({"W": a["W"]}, x), "rbm: no array 'vbias'"),
    "twice": (lambda a, x: (a | {"visible_bias": a["vbias"]}, x), "rbm: .* may each be vbias"),
    "text": (lambda a, x: (a | {"hbias": np.array(["a"] * 4)}, x), "rbm: hbias holds"),
    "a list": (lambda a, x: ([a["W"]], x), "rbm must be arrays by name, a path or an energy, not list"),
    "no file": (lambda a, x: ("nowhere.npz", x), "nowhere.npz: no such file"),
    "spins": (lambda a, x: (a, 2 * x - 1), "test holds spins"),
    "grey": (lambda a, x: (a, x / 3), "test holds 0.333"),
    "other pixels": (lambda a, x: (a, x[:, :5]), "5"),
    "no data": (lambda a, x: (a, x[:0]), "data"),
    "words": (lambda a, x: (a, "words"), "test"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str, arrays, test) -> None:
    change, words = MISTAKES[mistake]
    with pytest.raises(UsageError, match=words) as refused:
        unibound.certify(*change(arrays, test), **QUICK)
    assert "\n" not in str(refused.value)


def test_units_are_said(arrays, test) -> None:
    assert unibound.certify(arrays | {"W": arrays["W"] / 4}, 2 * test - 1, unit="spins", **QUICK).log_z is not None
    with pytest.raises(UsageError, match="unknown unit 'quarks'"):
        unibound.certify(arrays, test, unit="quarks")
