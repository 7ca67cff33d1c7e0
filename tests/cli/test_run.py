"""What a run leaves in its folder, and what a person or a program is shown of it."""

import json
import math
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from running import Cli, Words

from unibound.runs import checkpoint

KEYS = {"nll", "nll_stderr", "bits_per_dim", "log_z", "log_z_stderr", "log_z_side", "ess", "seconds", "run_dir"}


def test_folder_of_a_run(cli: Cli, tiny: Words) -> None:
    assert cli(*tiny()).code == 0
    assert {path.name for path in Path("run").iterdir()} == {
        "resolved.toml",
        "env.json",
        "data.json",
        "metrics.jsonl",
        "checkpoints",
        "evaluation.json",
        "samples.png",
        "reconstructions.png",
        "chain.png",
        "nearest.png",
        "traversals.png",
        "film",
        "SHA256SUMS",
        ".lock",
    }
    assert tomllib.loads(Path("run/resolved.toml").read_text())["estimator"]["name"] == "vimco"
    environment = json.loads(Path("run/env.json").read_text())
    assert {"python", "torch", "unibound", "plugins", "data_sha256"} <= environment.keys()
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [line["done"] for line in lines] == [1, 2]
    assert all(math.isfinite(line["bound"]) for line in lines)
    for name in ("samples", "reconstructions", "chain"):
        with Image.open(f"run/{name}.png") as image:
            assert image.size[0] > 100
            darkest, brightest = image.getextrema()
            assert darkest < brightest


def test_json_is_one_document_and_the_table_says_the_same(cli: Cli, tiny: Words) -> None:
    result = cli(*tiny(), "--json")
    document = json.loads(result.out)
    assert document.keys() >= KEYS
    assert document == json.loads(Path("run/evaluation.json").read_text())
    assert document["log_z_side"] == "lower"
    assert document["run_dir"] == "run"
    table = cli("run", "--resume", "run").out
    for text in (f"{document['nll']:.3f}", f"{document['bits_per_dim']:.4f}", f"{document['log_z']:.4f}", "by ais"):
        assert text in table


def test_default_folder_is_named_after_what_is_run(cli: Cli, tiny: Words) -> None:
    words = tiny()
    at = words.index("--run-dir")
    assert cli(*words[:at], *words[at + 2 :]).code == 0
    (folder,) = Path("runs").iterdir()
    assert folder.name.startswith("vimco-rbm-data-seed0-")


def test_run_folder_may_have_any_name(cli: Cli, tiny: Words) -> None:
    assert cli(*tiny("odd [bold]name")).code == 0
    assert "odd [bold]name" in cli("run", "--resume", "odd [bold]name").out


def test_one_test_datum_has_no_error_bar(cli: Cli, tiny: Words, npz: Callable[..., Path]) -> None:
    result = cli(*tiny(data=npz("one.npz", test=np.ones((1, 6)))), "--json")
    assert json.loads(result.out, parse_constant=pytest.fail)["nll_stderr"] is None
    assert "nan" not in cli("run", "--resume", "run").out


@pytest.mark.parametrize(
    ("flags", "without"),
    [
        ({"estimator": "sgvb", "prior": "gaussian"}, ("prior", "estimator")),
        ({"estimator": "vimco", "prior": "bernoulli"}, ("prior",)),
        ({"likelihood": "gaussian"}, ()),
        ({"partition": "exact"}, ("partition",)),
        ({"dtype": "float64", "binarization": "static", "trains": "q,prior"}, ()),
    ],
    ids=str,
)
def test_other_choices_run_too(cli: Cli, tiny: Words, flags: dict[str, str], without: tuple[str, ...]) -> None:
    result = cli(*tiny(without=without, **flags), "--json")
    assert result.code == 0, result.err
    assert math.isfinite(json.loads(result.out)["nll"])


def test_evaluate_again(cli: Cli, tiny: Words) -> None:
    before = json.loads(cli(*tiny(), "--json").out)
    same = json.loads(cli("evaluate", "run", "--json").out)
    assert (same["nll"], same["log_z"]) == (before["nll"], before["log_z"])
    exact = json.loads(cli("evaluate", "run", "--partition", "exact", "--num-particles", 50, "--json").out)
    assert (exact["partition"], exact["log_z_side"], exact["num_particles"]) == ("exact", "equal", 50)
    assert abs(exact["log_z"] - before["log_z"]) < 6 * before["log_z_stderr"] + 0.1
    valid = cli("evaluate", "run", "--split", "valid")
    assert "valid NLL" in valid.out


def test_sample_writes_the_picture_it_names(cli: Cli, tiny: Words) -> None:
    assert cli(*tiny()).code == 0
    assert cli("sample", "run", "--count", 7, "--out", "seven.png").out == "seven.png\n"
    with Image.open("seven.png") as image:
        assert image.size[0] > image.size[1]
    assert cli("sample", "run").out == "run/samples.png\n"


def test_list_and_show_name_every_plugin_and_its_settings(cli: Cli) -> None:
    listed = cli("list").out
    for name in ("vimco", "sgvb", "rbm", "ais", "exact", "mlp", "bernoulli", "digits"):
        assert name in listed
    shown = cli("show", "vimco").out
    for text in ("--estimator.num-particles", "Needs:", "Mnih and Rezende", "https://arxiv.org/abs/1602.06725"):
        assert text in shown
    assert "--partition.num-chains" in cli("show", "ais").out


def test_help_documents_layers_and_settings(cli: Cli) -> None:
    text = " ".join(cli("run", "--help").out.split())
    for part in ("--config", "--resume", "--estimator", "--epochs", "UNIBOUND_ESTIMATOR__NUM_PARTICLES"):
        assert part in text


@pytest.mark.parametrize("model", ["mlp", "identity", "denoising"])
def test_double_precision_everywhere(cli: Cli, tiny: Words, model: str) -> None:
    result = cli(*tiny(without=("model",), model=model, dtype="float64"), "--json")
    assert result.code == 0, result.err
    weights = checkpoint.load_weights(checkpoint.newest(Path("run/checkpoints")))
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float64}
