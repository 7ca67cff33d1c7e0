"""What is kept in the repository: short files, and no word of the places where they were written."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_LINES = 300
LONG = {"unibound/kernels/fused.py"}
# Spelled in pieces, so that this file does not hold them.
FORBIDDEN = ["/" + "work/", "shared" + "/", "issue " + "#", "bash" + "_jobs"]
ABOUT_PLACES = {".ci/run"}


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    return [path for name in listed.stdout.decode().splitlines() if (path := ROOT / name).is_file()]


def test_source_files_are_short() -> None:
    lengths = {
        str(path.relative_to(ROOT)): path.read_bytes().count(b"\n")
        for folder in ("unibound", "plugins")
        for path in (ROOT / folder).rglob("*.py")
    }
    long = {name: length for name, length in lengths.items() if length > MAX_LINES and name not in LONG}
    assert not long, f"split {long}: a file is at most {MAX_LINES} lines"


def test_no_file_names_a_place_of_the_machine() -> None:
    found = []
    for path in tracked():
        name = str(path.relative_to(ROOT))
        text = path.read_bytes()
        if name not in ABOUT_PLACES and b"\0" not in text[:8000]:
            found += [f"{name}: {word}" for word in FORBIDDEN if word.encode() in text]
    assert not found


def test_nothing_large_is_kept() -> None:
    large = {str(path.relative_to(ROOT)): size for path in tracked() if (size := path.stat().st_size) > 500_000}
    assert not large
