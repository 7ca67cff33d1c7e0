"""A run for Weights & Biases, or whatever else is called `wandb` and has its `init`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unibound.errors import UsageError

PROJECT = "unibound"


class WandB:
    """Logs to Weights & Biases; offline, into the folder of the run, unless the variable WANDB_MODE says otherwise.

    `wandb sync` uploads what was logged offline. Each session of a run is a run of its own there, named and grouped by
    the run's folder, and has all epochs from the first one on.

    Raises:
        UsageError: wandb is not installed.
    """

    def __init__(self) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UsageError("logger wandb needs wandb; pip install 'unibound[wandb]'") from error
        self._wandb: Any = wandb

    def begin(self, folder: Path, settings: Mapping[str, Any]) -> None:
        name = folder.resolve().name
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            mode=os.environ.get("WANDB_MODE", "offline"),
            dir=str(folder),
            name=name,
            group=name,
            config=dict(settings),
            settings=self._wandb.Settings(console="off", silent=True),  # stdout is the command's own
        )

    def epoch(self, done: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=done)

    def picture(self, done: int, name: str, path: Path) -> None:
        self._run.log({name: self._wandb.Image(str(path))}, step=done)

    def conclude(self, done: int, result: Mapping[str, Any]) -> None:
        self._run.summary.update({f"result/{name}": value for name, value in result.items()})

    def close(self) -> None:
        self._run.finish()
