"""What is written stands on the disk before anybody relies on it: content first, then the name that leads to it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from unibound import disk


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, bytes | frozenset[str]]]:
    """Every flush: of a file its content by then, of a folder the names in it."""
    seen: list[tuple[Path, bytes | frozenset[str]]] = []

    def fsync(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        seen.append((path, frozenset(os.listdir(path)) if path.is_dir() else path.read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells a handle's path by /proc")


@needs_proc
def test_a_file_is_flushed_before_it_has_its_name_and_its_folder_after(flushed: list, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    disk.write(path, b"new")
    (draft, content), (folder, names) = flushed
    assert disk.DRAFT.fullmatch(draft.name)
    assert content == b"new"  # whole, while the old one still had the name
    assert (folder, names) == (tmp_path, {"file"})


@needs_proc
def test_what_is_added_is_flushed_and_a_new_name_once(flushed: list, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    disk.append(path, b"one")
    disk.append(path, b"two")
    assert flushed == [(path, b"one"), (tmp_path, {"lines"}), (path, b"onetwo")]


@needs_proc
@pytest.mark.parametrize("make", [disk.make_folder, lambda path: disk.make_folder(path, exist_ok=True)])
def test_every_folder_that_was_made_is_flushed_into_the_one_above(
    make: Callable[[Path], None], flushed: list, tmp_path: Path
) -> None:
    make(tmp_path / "a" / "b")
    assert flushed == [(tmp_path, {"a"}), (tmp_path / "a", {"b"})]
