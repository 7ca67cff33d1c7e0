"""Which checkpoint a run ends with, and its weights in a joint: the newest, or the best by validation NLL."""

from pathlib import Path

from unibound.joint import JointBound
from unibound.runs import checkpoint
from unibound.runs.checkpoint import About
from unibound.settings.records import Settings


def kept(folder: Path, settings: Settings) -> tuple[Path, About | None, str]:
    """The checkpoint in a folder of them that the settings keep, what it is of, and in words which it is.

    Raises:
        UsageError: there is none.
        DamagedError: it is damaged, or the newest is, which says which was the best.
    """
    newest = checkpoint.newest(folder)
    about = checkpoint.check(newest)
    words = f"the newest, of epoch {int(newest.name)}"
    if settings.keep == "newest" or about is None:
        return newest, about, words
    if about.best is None:
        return newest, about, f"{words}: no look at the validation set was to be trusted"
    best = folder / f"{about.best:06d}"
    return best, checkpoint.check(best), f"the best on validation data, of epoch {about.best} of {int(newest.name)}"


def load_kept(joint: JointBound, found: Path) -> None:
    """Put the weights of a checkpoint into a joint; UsageError if they are of another."""
    weights = checkpoint.load_weights(found)
    with checkpoint.fitting(found):
        # Those of q and p, without what an estimator hung beside them.
        own = {name: value for name, value in weights.items() if not name.startswith("auxiliary.")}
        missing, stray = joint.load_state_dict(own, strict=False)  # training may have hung something there again
        if wrong := [name for name in [*missing, *stray] if not name.startswith("auxiliary.")]:
            raise KeyError(f"{', '.join(wrong)} in one of them only")
