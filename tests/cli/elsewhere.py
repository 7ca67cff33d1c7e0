"""Tensors that say they are on another device and compute on the CPU: what mixes the two fails, as it does on a GPU.

The device is called `meta`, since torch asks nothing of a machine for it.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")
CROSSES = {torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default}  # from one device to another


class Elsewhere(Tensor):
    """A tensor over there, which is `inner` here."""

    inner: Tensor
    is_meta = False  # it holds numbers

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Elsewhere":
        about = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        made = cls._make_wrapper_subclass(cls, inner.size(), device=DEVICE, requires_grad=inner.requires_grad, **about)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made = type(self)(self.inner.detach().clone())
        made = torch.nn.Parameter(made) if isinstance(self, torch.nn.Parameter) else made
        memo[id(self)] = made.requires_grad_(self.requires_grad)
        return memo[id(self)]

    def tolist(self) -> Any:
        return self.inner.detach().tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert a tensor that is elsewhere to numpy; use Tensor.cpu() first")

    __array__ = numpy


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operator gives, where it is to be."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = any(isinstance(x, Elsewhere) for x in given)
    here = [list(x.shape) for x in given if not isinstance(x, Elsewhere) and x.dim() > 0]  # a number may be anywhere
    if there and here and func not in CROSSES and not func.__name__.startswith("index"):  # and so may an index
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got {here} on the CPU")
    asked = kwargs.get("device")
    inner_args, inner_kwargs = tree_map_only(Elsewhere, lambda x: x.inner, (args, kwargs))
    if asked is not None:
        inner_kwargs["device"] = torch.device("cpu")
    found = func(*inner_args, **inner_kwargs)
    if func is torch.ops.aten.copy_.default:
        return args[0]
    if not (there if asked is None else torch.device(asked).type == DEVICE.type):
        return found
    known = {id(x.inner): x for x in given if isinstance(x, Elsewhere)}  # what was changed in place is what it was
    return tree_map_only(Tensor, lambda x: known[id(x)] if id(x) in known else Elsewhere(x), found)


class Operators(TorchDispatchMode):
    """Tensors can be made there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class FromNumbers(TorchFunctionMode):
    """From numbers, too, of which operators are not told."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.as_tensor and isinstance(args[0], Elsewhere):
            return args[0].to(**kwargs)
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


@contextmanager
def another_device() -> Iterator[torch.device]:
    """One that tensors can be moved to, and modules trained on."""
    save, swaps = torch.save, torch.__future__.get_swap_module_params_on_conversion()

    def save_plain(kept: Any, *rest: Any, **named: Any) -> None:
        save(tree_map_only(Elsewhere, lambda x: x.inner.detach(), kept), *rest, **named)

    with pytest.MonkeyPatch.context() as patch, FromNumbers(), Operators():
        patch.setenv("UNIBOUND_KERNELS", "reference")
        patch.setattr(torch, "save", save_plain)
        for name in ("optimizer", "adam", "sgd"):  # a fused step asks whether it knows the device
            module = importlib.import_module(f"torch.optim.{name}")
            patch.setattr(module, "_device_dtype_check_for_fused", lambda *_, **__: None, raising=False)
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            yield DEVICE
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swaps)
