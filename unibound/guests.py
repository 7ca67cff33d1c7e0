"""What a stranger's plugin does while it is imported, and may not: print, or change how torch works for everybody."""

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.distributions import Distribution

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
