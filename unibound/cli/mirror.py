"""The metrics of a run for TensorBoard, beside metrics.jsonl, which stays the truth."""

import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

from unibound.errors import UsageError
from unibound.runs.folder import RESOLVED
from unibound.runs.progress import Progress
from unibound.runs.run import METRICS

FOLDER = "tensorboard"
NO_METRICS = {"done", "stage", "epoch"}
BOUND = "bound"


def require() -> None:
    """Raise UsageError, with the cure, where TensorBoard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise UsageError("--tensorboard needs TensorBoard; pip install 'unibound[tensorboard]'") from error


def mirrored(run: Path, epochs: Iterator[Progress]) -> Iterator[Progress]:
    """Pass the epochs of a run on, and write each line of metrics as scalars, with the epoch as their step.

    All lines up to where the run stands are written again, and TensorBoard forgets what it had read before: it
    may hold epochs that were lost with an interruption.

    What it shows as `bound` is on log p(x), as on the terminal and in the report, where metrics.jsonl has that on
    log p*(x): less the log Z of the last look, and the first epoch has one. Settings are there as text.
    """
    from torch.utils.tensorboard import SummaryWriter

    written, log_z = 0, 0.0
    with SummaryWriter(str(run / FOLDER), purge_step=1) as writer:
        writer.add_text("settings", indent((run / RESOLVED).read_text(), "    "), 1)
        for progress in epochs:
            # Past `done` there may be lines of epochs that are to be done again.
            for text in (run / METRICS).read_text().splitlines()[written : progress.done]:
                line = json.loads(text)
                if "log_z" in line:  # null for a prior that is normalized
                    log_z = line["log_z"] or 0.0
                for name, value in line.items():
                    if name not in NO_METRICS and value is not None:
                        writer.add_scalar(name, value - log_z if name == BOUND else value, line["done"])
            written = progress.done
            writer.flush()
            yield progress
