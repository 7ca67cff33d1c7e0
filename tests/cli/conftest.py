"""A folder of its own for every test, tiny data and a tiny run."""

import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from running import TINY, Cli, Words, called, words_of

from unibound import registries


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own, without the settings of whoever runs it."""
    monkeypatch.chdir(tmp_path)
    # What is compiled on a new machine is said there alone; a handler of another test's stderr would be left, too.
    monkeypatch.setattr(logging.getLogger("unibound"), "level", logging.WARNING)
    for name in os.environ:
        if name.startswith("UNIBOUND_"):
            monkeypatch.delenv(name)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Call the command line in this process."""

    return partial(called, capsys)


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., Path]:
    """Write a data file of 30 x 6 bits, with other arrays where they are named."""

    def write(name: str = "data.npz", **arrays: np.ndarray | None) -> Path:
        rng = np.random.default_rng(0)
        splits: dict[str, np.ndarray | None] = {
            split: (rng.random((count, 6)) < 0.4).astype(np.uint8)
            for split, count in {"train": 30, "valid": 8, "test": 8}.items()
        }
        chosen = {split: x for split, x in (splits | arrays).items() if x is not None}
        np.savez(tmp_path / name, **chosen)
        return tmp_path / name

    return write


@pytest.fixture
def tiny(npz: Callable[..., Path]) -> Words:
    """The words of a tiny run; a part named by `without` gets no settings."""

    def words(run_dir: object = "run", *, without: tuple[str, ...] = (), **flags: object) -> list[str]:
        named = {name.replace("__", ".").replace("_", "-"): value for name, value in flags.items()}
        kept = {name: value for name, value in TINY.items() if name.partition(".")[0] not in without or "." not in name}
        chosen = {"data": npz(), "run-dir": run_dir} | kept | named
        return ["run", *words_of(chosen)]

    return words


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """Put a distribution with one module on the path, as if it were installed."""

    def make(name: str, module: str, text: str) -> None:
        folder = tmp_path / "site"
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[unibound]\n{module} = {module}\n")
        (folder / f"{module}.py").write_text(text)
        monkeypatch.syspath_prepend(folder)
        registries.cache_clear()

    yield make
    registries.cache_clear()
