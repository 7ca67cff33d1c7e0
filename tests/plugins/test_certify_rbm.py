"""`unibound certify` on anybody's RBM: files in, a certificate or a refusal out."""

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from annealed import random_rbm
from unibound_plugins.priors.rbm import RBM

from unibound import EnergyPrior, UsageError, registries
from unibound.cli import main
from unibound.evaluation.certify import certify
from unibound.evaluation.certify.rbm_file import read_rbm
from unibound.partition import enumeration
from unibound.testing.verdict import FALSE_ALARM

FOLDER = os.environ.get("UNIBOUND_DATA_DIR")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, RBM]:
    """An RBM of 16 visible and 6 hidden units, and bits drawn from it."""
    monkeypatch.setattr(sys, "argv", ["unibound"])
    torch.manual_seed(0)
    rbm = random_rbm(3, 16, 6)
    arrays = (parameter.detach().numpy() for parameter in (rbm.weight, rbm.visible_bias, rbm.hidden_bias))
    np.savez(tmp_path / "rbm.npz", **dict(zip(("W", "vbias", "hbias"), arrays, strict=True)))
    np.savez(tmp_path / "data.npz", test=enumeration.draw(rbm, 300).numpy().astype(np.uint8))
    return tmp_path / "rbm.npz", tmp_path / "data.npz", rbm


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = 0
    try:
        main(["certify", *map(str, words)])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_certificate(files: tuple[Path, Path, RBM], capsys: pytest.CaptureFixture[str]):
    rbm, data, prior = files
    code, out, _ = call(capsys, "--rbm", rbm, "--data", data, "--temperatures", 300, "--json")
    found = json.loads(out)
    assert (code, found["verdict"]) == (0, "certified")
    evidence = {row["name"]: row for row in found["evidence"]}
    bases = {"forward AIS", "forward AIS, uniform", "forward AIS, own chains"}
    assert evidence.keys() == bases | {"reverse AIS", "states met", "base rates", "RAISE", "CSL"}
    assert evidence["states met"]["value"] < enumeration.log_sum(prior) + 1e-4
    low, high = evidence["forward AIS"], evidence["reverse AIS"]
    assert low["value"] - FALSE_ALARM * low["stderr"] < enumeration.log_sum(prior)
    assert enumeration.log_sum(prior) < high["value"] + FALSE_ALARM * high["stderr"]
    assert found["log_z_low"] < found["log_z"] < found["log_z_high"]
    assert found["test_ll_low"] < found["test_ll"] < found["test_ll_high"]


def test_it_prints_what_is_proof_and_what_is_check(
    files: tuple[Path, Path, RBM], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "200")
    rbm, data, _ = files
    code, out, _ = call(capsys, "--rbm", rbm, "--data", data, "--temperatures", 100)
    assert code == 0
    for words in ("certified", "proof", "check", "with 95% confidence", "Markov", "log p_ann"):
        assert words in out


def test_a_refusal(files: tuple[Path, Path, RBM], capsys: pytest.CaptureFixture[str]):
    rbm, data, _ = files
    test = np.load(data)["test"].reshape(-1, 4, 4).transpose(0, 2, 1)
    np.savez(data, test=test)
    code, out, err = call(capsys, "--rbm", rbm, "--data", data, "--temperatures", 100, "--json")
    found = json.loads(out)
    assert (code, found["verdict"], found["test_ll"]) == (1, "refused", None)
    assert "transposed" in found["reasons"][0]
    assert "refused to certify" in err


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"vbias": np.zeros(3)}, "do not fit"),
        ({"W": np.zeros((6, 16))}, "transpose W"),
        ({"W": np.full((16, 6), np.nan)}, "overflowed"),
        ({"hbias": None}, "no array 'hbias'"),
    ],
)
def test_weights_that_cannot_be_read(
    files: tuple[Path, Path, RBM], capsys: pytest.CaptureFixture[str], arrays: dict, words: str
):
    rbm, data, _ = files
    kept = {name: value for name, value in (dict(np.load(rbm)) | arrays).items() if value is not None}
    np.savez(rbm, **kept)
    code, _, err = call(capsys, "--rbm", rbm, "--data", data)
    assert code == 2
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--base", "noise"), "unknown base"),
        (("--num-chains", "0"), "chain"),
        (("--temperatures", "0"), "num_temperatures"),
        (("--temperatures", "steep"), "unknown schedule"),
        (("--threads", "0"), "--threads"),
    ],
)
def test_options_that_make_no_sense(
    files: tuple[Path, Path, RBM], capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
):
    rbm, data, _ = files
    code, _, err = call(capsys, "--rbm", rbm, "--data", data, *options)
    assert code == 2
    assert words in err


def test_files_that_are_none(tmp_path: Path, files: tuple[Path, Path, RBM], capsys: pytest.CaptureFixture[str]):
    rbm, data, _ = files
    (tmp_path / "broken.npz").write_text("no archive")
    for words in (("--rbm", rbm), ("--rbm", tmp_path / "broken.npz", "--data", data), ("--rbm", rbm, "--data", "none")):
        assert call(capsys, *words)[0] == 2
    np.savez(data, train=np.zeros((3, 16)))
    assert "no array 'test'" in call(capsys, "--rbm", rbm, "--data", data)[2]


@pytest.fixture(scope="module")
def published() -> tuple[RBM, dict[str, torch.Tensor]]:
    """The 784 x 500 machine of Salakhutdinov and Murray (2008), and the images it was trained on, column-major."""
    if FOLDER is None:
        pytest.skip("UNIBOUND_DATA_DIR names no folder with the published weights and binarized MNIST")
    weights, images = (np.load(Path(FOLDER) / name) for name in ("sm2008_cd25_500.npz", "binarized_mnist.npz"))
    rbm = RBM.from_weights(*(torch.from_numpy(weights[name]) for name in ("W", "vbias", "hbias")))
    bits = {name: np.unpackbits(images[name], axis=1, count=784).reshape(-1, 28, 28) for name in ("train", "test")}
    return rbm, {name: torch.from_numpy(x.transpose(0, 2, 1).astype(np.float32)) for name, x in bits.items()}


def test_the_published_machine_on_upright_images(published: tuple[RBM, dict[str, torch.Tensor]]):
    rbm, images = published
    found = certify(rbm, images["test"][:500].mT.contiguous())
    assert found.verdict == "refused"
    assert "transposed pixels" in found.reasons[0]


def test_the_published_machine_from_a_uniform_base(published: tuple[RBM, dict[str, torch.Tensor]]):
    rbm, images = published
    few = {"num_chains": 20, "temperatures": 200, "num_steps": 50}
    found = certify(rbm, images["test"][:500], base="uniform", **few)
    assert found.verdict == "refused"
    assert "likely cause: too few temperatures" in found.reasons[-1]
    assert not any("--base" in reason for reason in found.reasons)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_published_machine(published: tuple[RBM, dict[str, torch.Tensor]]):
    rbm, images = published
    found = certify(rbm, images["test"], train=images["train"])
    assert found.verdict == "certified"
    assert found.log_z == pytest.approx(451.28, abs=0.4)
    assert found.test_ll == pytest.approx(-86.34, abs=0.4)
    raised = next(row for row in found.evidence if row.name == "RAISE")
    # One reverse chain loses half a nat of log p_ann; the error is that of the difference, datum by datum.
    there, apart = map(float, re.search(r"give them (\S+) \(\+- (\S+) beside\)", raised.note).groups())
    assert abs(raised.value - there + 0.5) < 4.75 * apart < 1


def written(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """A file of arrays, as its suffix says."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    elif path.suffix == ".mat":
        pytest.importorskip("scipy.io").savemat(path, arrays)
    else:
        torch.save({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, path)
    return path


NAMES = {
    "rbm.npz": ("components_", "intercept_visible_", "intercept_hidden_"),
    "rbm.safetensors": ("weight_matrix", "vbias", "hbias"),
    "rbm.mat": ("W", "visible_bias", "hidden_bias"),
    "rbm.pt": ("weight", "visible_bias", "hidden_bias"),
}


@pytest.mark.parametrize("name", NAMES)
def test_files_of_others_mean_the_same_machine(name: str, files: tuple[Path, Path, RBM], tmp_path: Path) -> None:
    values = [x.detach().numpy() for x in (files[2].weight, files[2].visible_bias, files[2].hidden_bias)]
    values[0] = values[0].T if name == "rbm.npz" else values[0]
    heard: list[str] = []
    (tmp_path / "theirs").mkdir()
    path = written(tmp_path / "theirs" / name, dict(zip(NAMES[name], values, strict=True)))
    found, _ = read_rbm(path, say=heard.append)
    assert enumeration.log_sum(found) == pytest.approx(enumeration.log_sum(files[2]), abs=1e-5)
    others = [theirs for theirs in NAMES[name] if theirs not in ("W", "vbias", "hbias")]
    assert all(f"from {theirs}" in heard[0] for theirs in others)
    twice = dict(zip(NAMES[name], values, strict=True)) | {"hidden_bias": values[2], "hbias": values[2]}
    with pytest.raises(UsageError, match=r"may each be hbias"):
        read_rbm(written(path, twice))
    path.write_bytes(b"no such thing")
    with pytest.raises(UsageError, match=r"is damaged, or no \."):
        read_rbm(path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    torch.save({"W": Bomb()}, tmp_path / "rbm.pt")
    with pytest.raises(UsageError, match=r"is damaged, or no \.pt file"):
        read_rbm(tmp_path / "rbm.pt")


def archive(path: Path, kind: str, updates: dict[int, dict[str, np.ndarray]]) -> Path:
    """A file as the package `rbms` writes it."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["model_type"], file["parallel_chains"] = kind, np.zeros((3, 6))
        for count, arrays in updates.items():
            group = file.create_group(f"update_{count}")
            group["time"], params = 1.5, group.create_group("params")
            for name, array in arrays.items():
                params[name] = group[name] = array
    return path


def test_an_archive_of_many_updates_is_that_of_the_last(files: tuple[Path, Path, RBM], tmp_path: Path) -> None:
    arrays = {"weight_matrix": files[2].weight, "vbias": files[2].visible_bias, "hbias": files[2].hidden_bias}
    arrays = {name: array.detach().numpy() for name, array in arrays.items()}
    early = {name: np.zeros_like(array) for name, array in arrays.items()}
    path, heard = archive(tmp_path / "rbm.h5", "BBRBM", {100: arrays, 20: early, 3: early}), list[str]()
    found, _ = read_rbm(path, say=heard.append)
    assert enumeration.log_sum(found) == pytest.approx(enumeration.log_sum(files[2]), abs=1e-5)
    assert "BBRBM after 100 updates" in heard[0]
    for kind, unit, words in (
        ("IIRBM", "bits", "say --unit spins"),
        ("BGRBM", "bits", "hidden units"),
        ("BBRBM", "spins", "say --unit bits"),
    ):
        with pytest.raises(UsageError, match=words):
            read_rbm(archive(tmp_path / "other.h5", kind, {1: arrays}), unit)
    with pytest.raises(UsageError, match="holds eta besides"):
        read_rbm(archive(tmp_path / "more.h5", "BBRBM", {1: arrays | {"eta": np.ones(3)}}))
    path.write_bytes(b"no archive")
    with pytest.raises(UsageError, match=r"is damaged, or no \.h5"):
        read_rbm(path)


def of_units(unit: str) -> tuple[EnergyPrior, dict[str, np.ndarray]]:
    """A machine, and the arrays that say what it is."""
    kinds = registries()["prior"]
    torch.manual_seed(4)
    visible, hidden = torch.randn(6) / 2, torch.randn(4) / 2
    if unit == "potts":
        weight, visible = torch.randn(6, 3, 4), torch.randn(6, 3) / 2
        made = kinds["potts_rbm"].from_weights(weight, visible, hidden)
    elif unit == "spins":
        weight = torch.randn(6, 4) / 2
        made = kinds["spin_rbm"].from_weights(weight, visible, hidden)
    else:
        weight = torch.randn(6, 4)
        made = kinds["gaussian_rbm"].from_weights(weight, visible, hidden, torch.full((6,), 0.7))
    arrays = {"W": weight.numpy(), "vbias": visible.numpy(), "hbias": hidden.numpy()}
    return made, arrays | ({"sigma": np.float32(0.7)} if unit == "gaussian" else {})


@pytest.mark.parametrize("unit", ["spins", "gaussian", "potts"])
def test_units_of_every_kind_are_certified(unit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prior, arrays = of_units(unit)
    x, log_z = enumeration.draw(prior, 400), enumeration.log_sum(prior)
    exact = (-prior.free_energy(x).double() - log_z).mean().item()
    rbm = written(tmp_path / "rbm.npz", arrays)
    np.savez(tmp_path / "data.npz", test=x.numpy())
    words = ["--rbm", rbm, "--data", tmp_path / "data.npz", "--unit", unit, "--temperatures", 300, "--json"]
    code, out, err = call(capsys, *words)
    found = json.loads(out)
    assert (code, found["verdict"]) == (0, "certified"), err
    assert found["log_z_low"] - 0.01 < log_z < found["log_z_high"] + 0.01
    assert found["test_ll_low"] - 0.01 < exact < found["test_ll_high"] + 0.01
    code, _, err = call(capsys, *words[:4])  # read as bits
    assert code in (1, 2), err


def test_spins_read_as_bits_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prior, _ = of_units("spins")
    x = enumeration.draw(prior, 400)
    as_bits = prior.as_bits()  # pyright: ignore
    arrays = {name: one.detach().numpy() for name, one in zip(("W", "vbias", "hbias"), as_bits, strict=False)}
    np.savez(tmp_path / "data.npz", test=x.numpy())
    rbm = written(tmp_path / "rbm.npz", arrays)
    words = ("--rbm", rbm, "--data", tmp_path / "data.npz", "--unit", "spins", "--temperatures", 200)
    code, out, err = call(capsys, *words)
    assert code == 1, (out, err)
    assert "weights of bits" in out + err


@pytest.mark.parametrize(
    ("unit", "change", "culprit"),
    [
        ("gaussian", {"sigma": np.zeros(6)}, "sigma must be positive"),
        ("gaussian", {"sigma": -np.ones(6)}, "sigma must be positive"),
        ("gaussian", {"sigma": None}, "no array 'sigma'"),
        ("potts", {"W": np.zeros((6, 4))}, "do not fit"),
        ("potts", {"vbias": np.full((6, 3), np.nan)}, "not numbers"),
        ("spins", {"sigma": np.ones(6)}, "holds sigma"),
        ("spins", {"W": np.full((6, 4), 1e9)}, "too large"),
        ("quarks", {}, "unknown unit 'quarks'"),
    ],
)
def test_units_that_do_not_fit_are_refused(unit: str, change: dict, culprit: str, tmp_path: Path) -> None:
    _, arrays = of_units("spins" if unit == "quarks" else unit)
    changed = {name: array for name, array in (arrays | change).items() if array is not None}
    with pytest.raises(UsageError) as refused:
        read_rbm(written(tmp_path / "rbm.npz", changed), unit)
    assert culprit in str(refused.value)
    assert "\n" not in str(refused.value)
