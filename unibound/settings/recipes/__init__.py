"""The runs that ship with the package, as TOML files; the first line of each says what it is, in a comment."""

from pathlib import Path


def recipes() -> dict[str, Path]:
    """The file of every recipe, by its name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}
