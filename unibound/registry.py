"""Find plugins by their entry points, and keep one Registry (name -> class) per kind."""

import difflib
import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import attrs
import pluggy

from unibound import hookspecs
from unibound.data import DataSet
from unibound.errors import PluginError, UsageError
from unibound.estimator import Estimator
from unibound.joint import Prior
from unibound.likelihood import Likelihood
from unibound.model import Model
from unibound.partition import PartitionEstimator

OWN_DISTRIBUTION = "unibound"

KINDS: dict[str, type] = {
    "estimator": Estimator,
    "prior": Prior,
    "partition_estimator": PartitionEstimator,
    "model": Model,
    "likelihood": Likelihood,
    "data_set": DataSet,
}


@attrs.define
class Registry(Mapping[str, type]):
    """The plugins of one kind, by name."""

    kind: str
    base: type
    _classes: dict[str, type] = attrs.field(factory=dict)
    _owners: dict[str, str] = attrs.field(factory=dict)

    def __getitem__(self, name: str) -> type:
        if name in self._classes:
            return self._classes[name]
        raise UsageError(f"unknown {self.kind} {name!r}; {did_you_mean(name, self._classes)}")

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))

    def __len__(self) -> int:
        return len(self._classes)

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def owner(self, name: str) -> str:
        """The distribution that registered a name."""
        return self._owners[name]

    def name_of(self, cls: type) -> str:
        """The name a class was registered under."""
        return next(name for name, known in self._classes.items() if known is cls)

    def add(self, name: str, cls: type, owner: str) -> None:
        """Register a class; PluginError if the name is taken or the class is of another kind."""
        if name in self._classes:
            raise PluginError(
                f"{owner} and {self._owners[name]} both register the {self.kind} {name!r}; "
                f"rename one, or uninstall one of the two distributions"
            )
        if not (isinstance(cls, type) and issubclass(cls, self.base)) or inspect.isabstract(cls):
            raise PluginError(
                f"{owner} registers {cls!r} as {self.kind} {name!r}; it must be a concrete subclass of "
                f"unibound.{self.base.__name__}"
            )
        self._classes[name], self._owners[name] = cls, owner


def did_you_mean(word: str, known: Mapping[str, Any] | list[str]) -> str:
    """Say what was probably meant, or what there is."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(sorted(known))}"


def load(points: list[EntryPoint]) -> dict[str, Registry]:
    """Import every entry point and let its module register.

    A stranger's plugin that fails is reported on stderr and left out; a built-in that fails is an error.

    Raises:
        PluginError: a built-in that does not load, or two plugins that claim one name.
    """
    registries = {kind: Registry(kind, base) for kind, base in KINDS.items()}
    for point in sorted(points, key=lambda point: (_distribution(point) != OWN_DISTRIBUTION, point.name)):
        owner = _distribution(point)
        try:
            _register(point, owner, registries)
        except PluginError as error:
            if owner == OWN_DISTRIBUTION:
                raise
            print(f"unibound: left out: {error}", file=sys.stderr)
    return registries


def _register(point: EntryPoint, owner: str, registries: dict[str, Registry]) -> None:
    label = f"plugin {point.name!r} ({point.value}) of distribution {owner!r}"
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(point.load(), name=label)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        hooks = [name for name in vars(hookspecs) if name.startswith("register_")]
        wrong = getattr(error.__cause__, "name", None) or _unknown_hook(manager, hooks) or "a hook"
        raise PluginError(f"{label} implements {wrong} wrongly; {did_you_mean(wrong, hooks)}") from error
    except Exception as error:
        raise PluginError(
            f"{label} does not load: {type(error).__name__}: {error}; fix it, or pip uninstall {owner}"
        ) from error
    if not any(hook.get_hookimpls() for hook in vars(manager.hook).values()):
        raise PluginError(f"{label} implements no hook; mark one with @unibound.hookimpl (see docs/hooks.md)")
    for kind, registry in registries.items():
        staged = Registry(kind, registry.base)
        getattr(manager.hook, f"register_{kind}s")(register=functools.partial(staged.add, owner=label))
        for name in staged:
            registry.add(name, staged[name], owner)


def _unknown_hook(manager: pluggy.PluginManager, hooks: list[str]) -> str | None:
    return next((name for name in vars(manager.hook) if name not in hooks and not name.startswith("_")), None)


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unnamed distribution"


@functools.cache
def registries() -> dict[str, Registry]:
    """Every plugin installed, by kind: estimator, prior, partition_estimator, model, likelihood, data_set."""
    return load(list(entry_points(group=hookspecs.GROUP)))


def settings_class(cls: type) -> type:
    """The attrs record of a plugin's settings.

    A record is its own; for a module it is made from the keyword-only parameters of its constructor.
    """
    return cls if attrs.has(cls) else _settings_of_module(cls)


@functools.cache
def _settings_of_module(cls: type) -> type:
    parameters = inspect.signature(cls).parameters.values()
    fields = {
        parameter.name: attrs.field(
            type=parameter.annotation,
            default=attrs.NOTHING if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return attrs.make_class(cls.__name__, fields, frozen=True, class_body={"__doc__": cls.__doc__})
