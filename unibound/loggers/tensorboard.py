"""A run for TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from unibound.errors import UsageError

FOLDER = "tensorboard"


class TensorBoard:
    """Keeps events for TensorBoard in the folder tensorboard/ of a run.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self) -> None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            raise UsageError("logger tensorboard needs TensorBoard; pip install 'unibound[tensorboard]'") from error

    def begin(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # TensorBoard forgets what it had read before: it may hold epochs that were lost with an interruption.
        self._writer = SummaryWriter(str(folder / FOLDER), purge_step=1)
        self._settings = settings

    def epoch(self, done: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, done)
        self._writer.flush()

    def picture(self, done: int, name: str, path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            self._writer.add_image(name, np.asarray(image.convert("RGB")), done, dataformats="HWC")

    def conclude(self, done: int, result: Mapping[str, Any]) -> None:
        self._writer.add_text("settings", f"```toml\n{tomli_w.dumps(self._settings)}\n```", done)
        self._writer.add_text("conclusion", str(result["conclusion"]), done)
        for name, value in result.items():
            if isinstance(value, float | int) and not isinstance(value, bool):
                self._writer.add_scalar(f"result/{name}", value, done)

    def close(self) -> None:
        self._writer.close()
