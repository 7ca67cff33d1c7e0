"""Checkpoints are whole or absent, and say so when they are hurt."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unibound import UniboundError, UsageError, disk
from unibound.runs import checkpoint

WEIGHTS = {"w": torch.arange(6.0).view(2, 3), "bits": torch.ones(2, dtype=torch.float64)}
STATE: dict[str, Any] = {"epoch": 3, "rng": torch.get_rng_state(), "nested": {"lr": [0.1, None, True]}}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = checkpoint.save(tmp_path, 7, WEIGHTS | {"view": WEIGHTS["w"].T}, STATE)
    assert saved == checkpoint.newest(tmp_path)
    weights, state = checkpoint.load_weights(saved), checkpoint.load_state(saved)
    assert all(torch.equal(weights[name], value) for name, value in WEIGHTS.items())
    assert torch.equal(weights["view"], WEIGHTS["w"].T)
    assert weights["bits"].dtype == torch.float64
    assert torch.equal(state.pop("rng"), STATE["rng"])
    assert state == {"epoch": 3, "nested": {"lr": [0.1, None, True]}}


def test_the_newest_two_stay(tmp_path: Path) -> None:
    for number in (1, 2, 10, 9, 11):
        checkpoint.save(tmp_path, number, WEIGHTS, STATE)
    assert [path.name for path in checkpoint.finished(tmp_path)] == ["000010", "000011"]


def test_only_its_own_folders_are_checkpoints(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, WEIGHTS, STATE)
    for name in ("9lives", "2024-01-01", "backup"):
        (tmp_path / name).mkdir()
    (tmp_path / "000009").write_text("no folder")
    for number in (2, 3, 4):
        checkpoint.save(tmp_path, number, WEIGHTS, STATE)
    assert checkpoint.newest(tmp_path).name == "000004"
    assert {"9lives", "2024-01-01", "backup", "000009"} <= {path.name for path in tmp_path.iterdir()}


def test_no_checkpoint_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no checkpoint"):
        checkpoint.newest(tmp_path / "checkpoints")


@pytest.mark.parametrize("step", ["write", "flush"])
def test_stopped_while_saving_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    checkpoint.save(tmp_path, 1, WEIGHTS, STATE)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(disk, step, stop)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, 2, WEIGHTS, STATE)
    assert checkpoint.newest(tmp_path).name == "000001"
    checkpoint.save(tmp_path, 2, WEIGHTS, STATE)
    assert checkpoint.newest(tmp_path).name == "000002"


def test_what_cannot_be_written_is_one_line_with_a_cure(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("no folder")
    with pytest.raises(UniboundError, match=r"cannot save .*000001 .*; make room, and go on with --resume"):
        checkpoint.save(tmp_path / "checkpoints", 1, WEIGHTS, STATE)


LOADERS = {checkpoint.WEIGHTS: checkpoint.load_weights, checkpoint.STATE: checkpoint.load_state}
DAMAGED = ".*/{} is damaged or no checkpoint .*; remove its folder to fall back on the one before"


def complaint(folder: Path, name: str, content: bytes) -> str:
    """What is said of a file with this content; nothing where it is loaded."""
    (folder / name).write_bytes(content)
    try:
        loaded = LOADERS[name](folder)
    except UsageError as error:
        return str(error)
    assert isinstance(loaded, dict)
    return ""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint, and where its files are hurt over and over."""
    folder = tmp_path_factory.mktemp("checkpoints")
    (folder / "hurt").mkdir()
    return checkpoint.save(folder, 1, WEIGHTS, {"epoch": 3}), folder / "hurt"


@given(st.sampled_from(list(LOADERS)), st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short_is_refused_in_one_line(folders: tuple[Path, Path], name: str, where: float) -> None:
    saved, hurt = folders
    whole = (saved / name).read_bytes()
    assert re.fullmatch(DAMAGED.format(name), complaint(hurt, name, whole[: int(where * len(whole))]))


@given(st.sampled_from(list(LOADERS)), st.floats(0, 1), st.binary(max_size=200))
def test_noise_in_a_file_is_loaded_or_refused_in_one_line(
    folders: tuple[Path, Path], name: str, where: float, noise: bytes
) -> None:
    saved, hurt = folders
    whole = (saved / name).read_bytes()
    at = int(where * len(whole))
    said = complaint(hurt, name, whole[:at] + noise + whole[at + len(noise) :])
    assert re.fullmatch(f"({DAMAGED.format(name)})?", said)
