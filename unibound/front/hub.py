"""A model hub: exported runs are pushed to it, and loaded from it. Needs huggingface_hub."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from unibound.errors import UniboundError, UsageError

SCHEME = "hf:"


def name_of(place: str | Path) -> str | None:
    """USER/NAME of a repository on the hub, hf:USER/NAME; None for what is a path."""
    text = str(place)
    if not text.startswith(SCHEME):
        return None
    name = text.removeprefix(SCHEME)
    if name.count("/") != 1 or not all(name.split("/")):
        raise UsageError(f"{text} names no repository; write hf:USER/NAME")
    return name


@contextmanager
def drafted() -> Iterator[Path]:
    """A place for a folder that is pushed."""
    with tempfile.TemporaryDirectory(prefix="unibound-") as folder:
        yield Path(folder) / "model"


def push(folder: Path, name: str, *, private: bool = False) -> str:
    """Upload an exported run to the repository USER/NAME, which is made if need be, and return its address.

    Raises:
        UsageError: huggingface_hub is missing.
        UniboundError: the hub refused.
    """
    api = _library().HfApi()
    with _reported(name):
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=str(folder), commit_message="A model by unibound"))


def fetch(name: str) -> Path:
    """The folder of a run in the repository USER/NAME, as the hub's library keeps it here; the same errors."""
    library = _library()
    with _reported(name):
        return Path(library.snapshot_download(name))


def _library() -> Any:
    try:
        return import_module("huggingface_hub")
    except ImportError:
        raise UsageError("hf: needs huggingface_hub; pip install 'unibound[hub]'") from None


@contextmanager
def _reported(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of a network and of a library that raises its own kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UniboundError(f"hf:{name}: {reason:.200}") from error
