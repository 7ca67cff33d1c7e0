"""The script that measures a GPU, under the interpreter: it runs, and it says so where a kernel is wrong."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="here benches/gpu.py itself can be run")


@pytest.fixture
def gpu(fused: ModuleType) -> ModuleType:
    return importlib.import_module("gpu")


@pytest.mark.slow
def test_every_part_runs_and_is_written_down(gpu: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    assert gpu.main(["--tiny", "--device", "cpu", "--out", str(out)]), out.read_text()
    found = json.loads(out.read_text())
    assert list(found["parts"]) == [part.__name__ for part in gpu.PARTS]
    assert found["machine"]["tiny"]
    assert found["parts"]["annealing"]["done"] == found["parts"]["reverse"]["done"] == 1


def test_states_of_another_machine_do_not_agree(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    assert gpu.transitions("cpu", gpu.TINY)["agrees"]
    right = gpu.fused.rbm_gibbs
    monkeypatch.setattr(gpu.fused, "rbm_gibbs", lambda v, w, b, c, steps: right(v, w, b + 1, c, steps))
    assert not gpu.transitions("cpu", gpu.TINY)["agrees"]


def test_weights_that_are_off_do_not_agree(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def off(*given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states, log_w = gpu.reference.rbm_ais(*given)
        return states, log_w + 0.5

    torch.manual_seed(0)
    monkeypatch.setattr(gpu.fused, "rbm_ais", gpu.reference.rbm_ais)  # which the interpreter need not repeat
    assert gpu.agreement("cpu", gpu.TINY)["agrees"]
    monkeypatch.setattr(gpu.fused, "rbm_ais", off)
    assert not gpu.agreement("cpu", gpu.TINY)["agrees"]


def test_a_part_that_fails_leaves_the_others(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(device: str, sizes: object) -> dict[str, object]:
        raise RuntimeError("no room")

    monkeypatch.setattr(gpu, "PARTS", (broken, gpu.transitions))
    words = ["--tiny", "--device", "cpu", "--out", str(tmp_path / "found.json"), "--only"]
    assert not gpu.main([*words, "broken"])
    assert gpu.main([*words, "transitions"])
    parts = json.loads((tmp_path / "found.json").read_text())["parts"]
    assert parts["broken"]["error"] == "RuntimeError: no room"
    assert parts["transitions"]["agrees"]


def test_a_process_that_dies_is_written_down(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu.sys, "executable", "false")
    out = tmp_path / "found.json"
    assert not gpu.main(["--tiny", "--device", "cpu", "--out", str(out)])
    for row in json.loads(out.read_text())["parts"].values():
        assert row["error"] == "its process ended with exit code 1"


def test_without_a_gpu_it_says_so_in_one_line(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "there is no GPU here" in capsys.readouterr().err
