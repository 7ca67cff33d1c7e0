"""Files that are written whole or not at all, and stand on the disk before anybody relies on them.

A file is written beside under a name that nobody can guess, flushed, and renamed; then its folder is flushed. After a
power cut there is the old content or the new one, never half of it.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from pathlib import Path

DRAFT = re.compile(r"\..+\.draft")


def write(path: Path, content: bytes) -> None:
    """Put a file in the place of what was there; a link stays one, and what is no regular file is written to.

    Args:
        path: may be a link, a pipe or a terminal.
        content: all of it. The mode is that of any new file, by the umask.

    Raises:
        OSError: it cannot be written; what was there is untouched.
    """
    if _is_stream(path):
        with path.open("ab", buffering=0) as stream:
            stream.write(content)
        return
    path = Path(os.path.realpath(path))
    draft = draft_of(path)
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    flush(path.parent)


def append(path: Path, content: bytes) -> None:
    """Add to the end of a file, and flush it. Raises OSError."""
    new = not path.exists()
    with path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if new:
        flush(path.parent)


def draft_of(path: Path) -> Path:
    """The name beside `path` under which it is drafted: another each time."""
    return path.with_name(f".{path.name:.100}.{secrets.token_hex(8)}.draft")


def make_folder(path: Path, *, exist_ok: bool = False) -> None:
    """Make a folder, and those above it that are missing, so that a power cut leaves them there.

    Raises:
        FileExistsError: it is there already; of several processes, one makes it.
    """
    if not path.parent.exists():
        make_folder(path.parent, exist_ok=True)
    path.mkdir(exist_ok=exist_ok)
    flush(path.parent)


def flush(folder: Path) -> None:
    """Have the disk hold the names in a folder. Raises OSError, but not where a file system cannot do it."""
    if os.name == "nt":  # where folders cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove drafts that were never finished; whoever calls this owns the folder."""
    for left in folder.iterdir() if folder.is_dir() else ():
        if DRAFT.fullmatch(left.name):
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink(missing_ok=True)


def _is_stream(path: Path) -> bool:
    """Whether a path names something to write to, and no content that could be replaced."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False
    # /dev/stdout may lead to a regular file, which whoever opened it goes on writing to.
    return not regular or re.match(r"/dev/(std|fd/)|/proc/", str(path.absolute())) is not None
