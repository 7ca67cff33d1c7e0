"""`unibound sample`: draws of a trained run, as a picture or as arrays."""

from pathlib import Path

import torch

from unibound.errors import UsageError
from unibound.runs import pictures
from unibound.runs.files import require_file
from unibound.runs.made import made
from unibound.runs.run import Run

SUFFIXES = (".png", ".npz")


def sample(run: Path, count: int, seed: int | None, out: Path) -> Path:
    """Draw from a run, write what its suffix says, and return the path.

    Arrays are of p, and, with its name before theirs, of each model that q and p make together.

    Raises:
        UsageError: another suffix, or no place to write to.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--out {out} is neither .png, a picture of means, nor .npz, arrays of draws; name one of them"
        )
    opened = Run.open(run)
    require_file("--out", out, f"a {out.suffix.lower()} file")
    with torch.random.fork_rng():
        torch.manual_seed(opened.settings.seed if seed is None else seed)
        if out.suffix.lower() == ".png":
            pictures.save_grid(out, pictures.samples(opened.joint, count))
        else:
            dreams = pictures.dreams(opened.joint, count)
            for name, joint in made(opened).items():
                dreams |= {f"{name}_{part}": found for part, found in pictures.dreams(joint, count).items()}
            pictures.save_arrays(out, dreams)
    return out
