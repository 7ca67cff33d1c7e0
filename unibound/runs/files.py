"""Files of a run, written whole or not at all."""

import os
from pathlib import Path

from unibound.errors import UsageError


def write_text(path: Path, text: str) -> None:
    """Write a file beside and rename it, so that nobody ever sees half of it."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    os.replace(draft, path)


def require_file(flag: str, path: Path, kind: str) -> None:
    """Raise UsageError, in the words of a flag, for a path that no file can be written to."""
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"{flag} {path} is no file in an existing folder; name {kind} to write")
