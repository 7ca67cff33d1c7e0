"""Small files of a run: written whole, listed in `SHA256SUMS` with their digests, and read back with care."""

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from unibound import disk
from unibound.errors import DamagedError, UsageError

SUMS = "SHA256SUMS"
"""Digests of the files beside it, as `sha256sum --check` reads them."""


def write_text(path: Path, text: str) -> None:
    """Write a text, whole or not at all."""
    disk.write(path, text.encode())


def write_sealed(path: Path, text: str) -> None:
    """The same for a file that `read_sealed` is to know again."""
    content = text.encode()
    # The digest first: killed in between, the file is not taken for what it was to become.
    write_sums(path.parent, read_sums(path.parent) | {path.name: hashlib.sha256(content).hexdigest()})
    disk.write(path, content)


def read_sealed(path: Path, cure: str, what: str = "not what was written") -> str | None:
    """The text of a small file; None where there is none. A file that has no digest, as of version 0.1, is believed.

    Args:
        path: what is read.
        cure: what to do about one that is hurt.
        what: what such a one is.

    Raises:
        DamagedError: it is no text, or not what was written.
    """
    try:
        content = path.read_bytes()
        digest = read_sums(path.parent).get(path.name)
        if digest is not None and digest != hashlib.sha256(content).hexdigest():
            raise DamagedError(f"{path} is {what} (its SHA-256 is not the one in {SUMS}); {cure}")
        return content.decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedError(f"{path} is {what} ({error!s:.120}); {cure}") from error


def read_json(path: Path, cure: str, what: str = "not what was written") -> dict[str, Any] | None:
    """The same of a file that holds one JSON object."""
    if (text := read_sealed(path, cure, what)) is None:
        return None
    try:
        if isinstance(found := json.loads(text), dict):
            return found
        reason = "no JSON object"
    except (ValueError, RecursionError) as error:
        reason = f"no JSON: {error!s:.80}"
    raise DamagedError(f"{path} is {what} ({reason}); {cure}")


def read_sums(folder: Path) -> dict[str, str]:
    """Digest of each file that has one. Raises DamagedError where the list is hurt."""
    path = folder / SUMS
    try:
        text = path.read_bytes().decode("ascii", "replace") if path.exists() else ""
    except OSError as error:
        raise DamagedError(f"cannot read {path}: {error.strerror}") from error
    lines = [re.fullmatch(r"([0-9a-f]{64})  (\S+)", line) for line in text.split("\n")[:-1]]
    if (path.exists() and not text.endswith("\n")) or not all(lines):
        raise DamagedError(f"{path} is damaged; remove it to go on with what it lists unchecked")
    return {line[2]: line[1] for line in lines if line}


def write_sums(folder: Path, sums: dict[str, str]) -> None:
    """Write down the digests of files."""
    disk.write(folder / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode())


def require_file(flag: str, path: Path, kind: str) -> None:
    """Raise UsageError, in the words of a flag, for a path that no file can be written to."""
    with contextlib.suppress(OSError):
        if not path.is_dir() and path.parent.is_dir():
            return
    raise UsageError(f"{flag} {path} is no file in an existing folder; name {kind} to write")
