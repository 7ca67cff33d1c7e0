"""Loggers by their names, or as objects."""

from collections.abc import Callable, Iterable
from typing import Any

from unibound.errors import UsageError
from unibound.guests import find, is_object
from unibound.loggers.logger import Logger
from unibound.loggers.table import CSV
from unibound.loggers.tensorboard import TensorBoard
from unibound.loggers.wandb import WandB
from unibound.registry import did_you_mean

NAMES: dict[str, Callable[[], Logger]] = {"csv": CSV, "tensorboard": TensorBoard, "wandb": WandB}


def loggers_of(given: str | Logger | Iterable[str | Logger]) -> list[Logger]:
    """Loggers that can be used here, by names with commas between them, as objects, or several of these.

    A class of one's own is named as path.py:Class or package.module:Class.

    Raises:
        UsageError: an unknown name, one that is not installed, or an object without the methods of a `Logger`.
    """
    if isinstance(given, str):
        return [_made(name.strip()) for name in given.split(",") if name.strip()]
    if isinstance(given, Logger) or not isinstance(given, Iterable):
        return [_checked(given)]
    return [logger for one in given for logger in (loggers_of(one) if isinstance(one, str) else [_checked(one)])]


def _made(name: str) -> Logger:
    if name in NAMES:
        return NAMES[name]()
    if not is_object(name):
        raise UsageError(f"unknown logger {name!r}; {did_you_mean(name, NAMES)}")
    try:
        return _checked(find(name)())
    except TypeError as error:
        raise UsageError(f"logger {name} cannot be made without arguments: {error}; give it from Python") from error


def _checked(given: Any) -> Logger:
    if isinstance(given, type):
        raise UsageError(f"logger {given.__name__} is a class; give one that was made: {given.__name__}()")
    wanted = [name for name in vars(Logger) if not name.startswith("_")]
    if missing := [name for name in wanted if not callable(getattr(given, name, None))]:
        raise UsageError(f"a {type(given).__name__} is no logger: it has no {missing[0]}(); see unibound.Logger")
    return given
