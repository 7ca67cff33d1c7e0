"""Which checkpoint a run ends with, and its weights in a joint: the newest, or the best by validation NLL."""

from pathlib import Path

from unibound.errors import UsageError
from unibound.joint import JointBound
from unibound.runs import checkpoint
from unibound.runs.checkpoint import About
from unibound.runs.folder import RESOLVED, read_settings, warn
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


def begin(joint: JointBound, settings: Settings, checkpoints: Path) -> None:
    """Put the weights in that training begins with, where the settings name some and nothing is trained yet.

    Parameters are all of them taken; of buffers, chains among them, those that are as large as here.

    Raises:
        UsageError: no run or export there, or one of other networks.
    """
    start = settings.warm_start
    if start is None or checkpoint.finished(checkpoints):
        return
    found, _, _ = kept(start / checkpoint.CHECKPOINTS, read_settings(start, warn))
    weights, own = checkpoint.load_weights(found), joint.state_dict()
    fits = {name: value for name, value in weights.items() if name in own and value.shape == own[name].shape}
    if left := [name for name, _ in joint.named_parameters() if name not in fits]:
        there = list(weights[left[0]].shape) if left[0] in weights else "not there"
        raise UsageError(
            f"warm_start: {left[0]} of {list(own[left[0]].shape)} is {there} in {start}; "
            f"give the model and the prior that {start / RESOLVED} has"
        )
    joint.load_state_dict(fits, strict=False)
