"""The metrics of a run for TensorBoard, beside metrics.jsonl, which stays the truth."""

import json
from collections.abc import Iterator
from pathlib import Path

from unibound.errors import UsageError
from unibound.runs.progress import Progress
from unibound.runs.result import Result
from unibound.runs.run import METRICS, RESOLVED

FOLDER = "tensorboard"
NO_METRICS = {"done", "stage", "epoch"}


def require() -> None:
    """Raise UsageError, with the cure, where TensorBoard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise UsageError("--tensorboard needs TensorBoard; pip install 'unibound[tensorboard]'") from error


def mirrored(run: Path, epochs: Iterator[Progress]) -> Iterator[Progress]:
    """Pass the epochs of a run on, and write each line of metrics as scalars, with the epoch as their step.

    The bound is on log p(x), by the log Z of the last look, as a terminal shows it; what was measured is of log p*(x)
    where log Z is estimated. All lines up to where the run stands are written again, and TensorBoard forgets what it
    had read before: it may hold epochs that were lost with an interruption.
    """
    from torch.utils.tensorboard import SummaryWriter

    written, log_z = 0, 0.0
    with SummaryWriter(str(run / FOLDER), purge_step=1) as writer:
        for progress in epochs:
            # Past `done` there may be lines of epochs that are to be done again.
            for text in (run / METRICS).read_text().splitlines()[written : progress.done]:
                line = json.loads(text)
                found = line.get("log_z")
                log_z = log_z if found is None else found
                for name, value in line.items():
                    if name not in NO_METRICS and value is not None:
                        writer.add_scalar(name, value - log_z if name == "bound" else value, line["done"])
            written = progress.done
            writer.flush()
            yield progress


def conclude(run: Path, result: Result) -> None:
    """Write what came out of a run, its settings and its pictures, beside its metrics."""
    import numpy as np
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

    done = json.loads((run / METRICS).read_text().splitlines()[-1])["done"]
    with SummaryWriter(str(run / FOLDER)) as writer:
        writer.add_text("settings", f"```toml\n{(run / RESOLVED).read_text()}\n```", done)
        writer.add_text("conclusion", result.conclusion, done)
        for name, value in result.document.items():
            if isinstance(value, float | int) and not isinstance(value, bool):
                writer.add_scalar(f"result/{name}", value, done)
        for path in sorted(run.glob("*.png")):
            with Image.open(path) as image:
                writer.add_image(path.stem, np.asarray(image.convert("RGB")), done, dataformats="HWC")
