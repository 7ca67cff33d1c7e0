"""Plugins of strangers: what one may not do while it is imported, and classes that are named without being registered.

While it is imported, none may print, or change how torch works for everybody.
"""

import contextlib
import functools
import hashlib
import importlib
import importlib.util
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch.distributions import Distribution

from unibound.data.hubs import is_hub
from unibound.errors import UsageError
from unibound.hookspecs import printable

Setting = tuple[Callable[[], Any], Callable[[Any], Any]]


def _set_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


GLOBALS: dict[str, Setting] = {
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "the default device": (torch.get_default_device, _set_device),
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "whether gradients are kept": (torch.is_grad_enabled, torch.set_grad_enabled),
    "whether torch is deterministic": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "the search for anomalies": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "the precision of products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "the checks of distributions": (lambda: Distribution._validate_args, Distribution.set_default_validate_args),
    "the random numbers": (lambda: torch.get_rng_state().tolist(), lambda s: torch.set_rng_state(torch.ByteTensor(s))),
}
"""Settings of torch that hold for the whole process, each with how it is read and how it is put back."""


@contextlib.contextmanager
def at_the_door() -> Iterator[list[str]]:
    """Catch what is printed, and put back what is changed; what is yielded says afterwards what that was."""
    before = {name: get() for name, (get, _) in GLOBALS.items()}
    out, found = io.StringIO(), list[str]()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            yield found
    finally:
        for name, (get, put) in GLOBALS.items():
            if get() != before[name]:
                put(before[name])
                found.append(f"changes {name}, which was put back")
        if text := " ".join(out.getvalue().split()):
            found.append(f"prints {printable(text)[:60]!r}, which was left out")


def is_object(text: str) -> bool:
    """Whether text names a class, as path.py:Class or package.module:Class, and no plugin that is registered."""
    module, _, name = text.rpartition(":")
    return bool(module) and name.isidentifier() and not is_hub(text)


def absolute(text: str) -> str:
    """The same name, to be read from any folder."""
    module, _, name = text.rpartition(":")
    return f"{Path(module).expanduser().absolute()}:{name}" if module.endswith(".py") else text


def find(text: str) -> Any:
    """What text names, as path.py:Class or package.module:Class; its module is run. Raises UsageError."""
    module, _, name = absolute(text).rpartition(":")
    try:
        found = _from_file(Path(module)) if module.endswith(".py") else importlib.import_module(module)
    except (KeyboardInterrupt, UsageError):
        raise
    except BaseException as error:  # whatever a stranger's module does
        raise UsageError(
            f"{text}: {module} does not load: {type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    if not hasattr(found, name):
        there = [
            one for one, value in vars(found).items() if isinstance(value, type) and value.__module__ == found.__name__
        ]
        raise UsageError(f"{text}: {module} has no {name}; its classes are: {', '.join(there) or 'none'}")
    return getattr(found, name)


@functools.cache
def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"there is no file {path}; check the path")
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"  # of many plugin.py, each is its own
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
