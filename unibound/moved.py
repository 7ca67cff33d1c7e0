"""Modules of version 0.1 under the paths they had then: imported from there they say where they are now."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "annealing": "partition.annealing",
    "certify": "evaluation.certify",
    "diagnose": "evaluation.diagnose",
    "download": "data.download",
    "evaluate": "evaluation.evaluate",
    "listing": "partition.enumeration",
    "memory": "evaluation.memory",
    "schedules": "partition.schedules",
    "shards": "partition.shards",
}


class _Forwarder(MetaPathFinder, Loader):
    """Finds the module that an old path means, the very same object."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, old = name.partition(".")
        return ModuleSpec(name, self) if package == "unibound" and old in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        now = f"unibound.{MOVED[spec.name.partition('.')[2]]}"
        warnings.warn(f"{spec.name} is now {now}", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(now)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module back the spec it was imported by; the import system has put ours in its place."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def forward() -> None:
    """Make old paths importable."""
    if not any(isinstance(finder, _Forwarder) for finder in sys.meta_path):
        sys.meta_path.append(_Forwarder())
