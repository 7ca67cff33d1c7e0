"""Files that live on the net or in a folder of the user's: fetched once, verified, never half there."""

import hashlib
import itertools
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, TYPE_CHECKING

from unibound.errors import UniboundError, UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

_TIMEOUT = 30  # seconds without a byte
_ABANDONED = 3600  # seconds after which a partial file belongs to no running download


def data_home() -> Path:
    """Name the folder downloads are kept in: `UNIBOUND_DATA_HOME`, or a cache folder of the user's."""
    import platformdirs

    chosen = os.environ.get("UNIBOUND_DATA_HOME")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("unibound") / "data"


def fetch(url: str, checksum: str, *, subfolder: str = "", mirrors: Sequence[str] = ()) -> Path:
    """Return the path of a verified copy of a file, downloading it the first time.

    A copy in the cache is verified too, each time, and replaced if it is not what it should be. A download goes to a
    temporary file that takes its place only when it is complete and right, so that neither an interruption nor a second
    process leaves or sees a damaged one. What was there before is never deleted: it is set aside under its own name and
    `.old`, since somebody may have put it there by hand.

    Args:
        url: where the file is; its last part is the name of the copy.
        checksum: `sha256:...`, `md5:...` or any other name in hashlib, or `git:...`, a git blob id.
        subfolder: the folder below `data_home()`, usually the name of the data set.
        mirrors: other addresses of the same file, tried in turn.

    Raises:
        UniboundError: no address gave the right file, or it cannot be written; says where to put it by hand.
    """
    path = data_home() / subfolder / url.rsplit("/", 1)[-1]
    problems = []
    try:
        if path.is_file():
            if digest(path, checksum) == checksum:
                return path
            problems.append(f"{path}, which is left as it is, does not have the checksum {checksum}")
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        for address in (url, *mirrors):
            problem = _download(address, path, checksum)
            if problem is None:
                return path
            problems.append(f"{address}: {problem}")
    except OSError as error:
        raise UniboundError(
            f"cannot keep {path}: {error.strerror or error}; make room or make it writable, "
            "or set UNIBOUND_DATA_HOME to another folder"
        ) from error
    raise UniboundError(
        f"cannot download {path.name} ({'; '.join(problems)}); try again with a connection, "
        f"put the file at {path}, or set `folder` to a folder that has it"
    )


def digest(path: Path, checksum: str) -> str:
    """Compute the checksum of a file, in the kind of the given one (`sha256:...`, `git:...`)."""
    kind = checksum.partition(":")[0]
    hasher = hashlib.sha1() if kind == "git" else hashlib.new(kind)
    with path.open("rb") as file:
        if kind == "git":
            hasher.update(b"blob %d\0" % path.stat().st_size)
        while block := file.read(1 << 20):
            hasher.update(block)
    return f"{kind}:{hasher.hexdigest()}"


def find(folder: str | Path, *names: str) -> Path:
    """Return the first of some files that a folder of the user's has.

    Raises:
        UsageError: it has none of them, or is no folder.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; check the path, or leave `folder` out to download")
    for name in names:
        if (folder / name).is_file() and os.access(folder / name, os.R_OK):
            return folder / name
    raise UsageError(f"{folder}: has no readable {' or '.join(names)}; put it there, or leave `folder` out to download")


def _download(url: str, path: Path, checksum: str) -> str | None:
    """Download to a temporary file, verify and move it to its place; return what went wrong, if anything."""
    import pooch
    import requests
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = TextColumn(f"downloading {path.name}"), DownloadColumn(), TransferSpeedColumn()
    with NamedTemporaryFile(dir=path.parent, prefix=f"{path.name}.", suffix=".part", delete=False) as file:
        partial = Path(file.name)
        try:
            with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
                source = pooch.HTTPDownloader(chunk_size=1 << 16, timeout=_TIMEOUT)
                source(url, _Watched(file, progress), None)
            found = digest(partial, checksum)
            if found != checksum:
                return f"its {partial.stat().st_size} bytes have checksum {found}, not {checksum}"
            file.close()  # an open file cannot be moved everywhere
            partial.chmod(0o644)  # a temporary file is private; a cache may be shared
            if path.exists():
                path.replace(_free(path))
            partial.replace(path)
        except requests.HTTPError as error:
            return f"HTTP status {getattr(error.response, 'status_code', 'unknown')}"
        except requests.Timeout:
            return f"no answer for {_TIMEOUT} s"
        except requests.ConnectionError:
            return "no connection"
        except requests.RequestException as error:
            return f"the transfer broke off ({type(error).__name__})"
        finally:
            with suppress(OSError):  # a full disk fails here again
                file.close()
            partial.unlink(missing_ok=True)
    return None


def _free(path: Path) -> Path:
    """A name beside a file that nothing has yet."""
    names = (path.with_name(f"{path.name}.old{'' if n == 0 else n}") for n in itertools.count())
    return next(name for name in names if not name.exists())


class _Watched:
    """A file that tells a progress bar how much was written to it."""

    def __init__(self, file: IO[bytes], progress: "Progress") -> None:
        self.file, self.progress = file, progress
        self.task = progress.add_task("", total=None)

    def write(self, block: bytes) -> None:
        self.file.write(block)
        self.progress.advance(self.task, len(block))

    def flush(self) -> None:
        self.file.flush()


def _sweep(path: Path) -> None:
    """Remove what killed downloads of this file have left."""
    for partial in path.parent.glob(f"{path.name}.*.part"):
        if time.time() - partial.stat().st_mtime > _ABANDONED:
            partial.unlink(missing_ok=True)
