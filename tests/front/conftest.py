"""A folder of its own for every test, and the command line in this process."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from running import called


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("UNIBOUND_"):
            monkeypatch.delenv(name)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable:
    return partial(called, capsys)
