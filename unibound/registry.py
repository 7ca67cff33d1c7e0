"""Find plugins by their entry points, and keep one Registry (name -> class) per kind."""

import difflib
import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint
from typing import Any

import attrs
import pluggy
from torch import nn

from unibound import hookspecs
from unibound.data.splits import DataSet
from unibound.energies.transition import Transition
from unibound.errors import PluginError, UsageError
from unibound.estimator import Estimator
from unibound.guests import at_the_door, find, is_object
from unibound.hookspecs import OWN_DISTRIBUTION, distribution, points, printable
from unibound.likelihood import Likelihood
from unibound.model import Model
from unibound.partition.log_z import PartitionEstimator
from unibound.prior import Prior
from unibound.record import settings_class

KINDS: dict[str, type] = {
    "estimator": Estimator,
    "prior": Prior,
    "partition_estimator": PartitionEstimator,
    "model": Model,
    "likelihood": Likelihood,
    "transition": Transition,
    "data_set": DataSet,
}


@attrs.define
class Registry(Mapping[str, type]):
    """The plugins of one kind, by name; a class that is not registered is found as path.py:Class or module:Class."""

    kind: str
    base: type
    _classes: dict[str, type] = attrs.field(factory=dict)
    _owners: dict[str, str] = attrs.field(factory=dict)

    @property
    def label(self) -> str:
        """The kind, in words."""
        return self.kind.replace("_", " ")

    def __getitem__(self, name: str) -> type:
        if name in self._classes:
            return self._classes[name]
        if isinstance(name, str) and is_object(name):
            cls = find(name)
            self._require_fit(cls, f"{name} is to be a {self.label}, but is {cls!r}", f"{name} is a {self.label}, but")
            return cls
        raise UsageError(f"unknown {self.label} {name!r}; {did_you_mean(name, self._classes)}")

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
        """Register a class; PluginError if the name is taken, or the class of another kind or without settings."""
        what = f"{self.label} {name!r}"
        if not isinstance(name, str):
            raise PluginError(f"{owner} registers {name!r}, which is no name; call register(name, cls)")
        if not hookspecs.NAME.fullmatch(name):
            raise PluginError(
                f"{owner} registers the {self.label} {name!r}; a name is of small letters, digits and _, a letter first"
            )
        self.require_free(name, owner)
        where = f"{owner} registers {getattr(cls, '__name__', cls)} as {what}, but"
        self._require_fit(cls, f"{owner} registers {cls!r} as {what}", where)
        self._classes[name], self._owners[name] = cls, owner

    def _require_fit(self, cls: Any, claim: str, where: str) -> None:
        """Raise PluginError, in these words, for what is no class of this kind that can be used."""
        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            raise PluginError(f"{claim}; it must be a concrete subclass of unibound.{self.base.__name__}")
        if inspect.isabstract(cls):
            missing = ", ".join(sorted(cls.__abstractmethods__))
            raise PluginError(f"{where} {missing} is abstract; define it")
        if self.kind in ("prior", "likelihood") and not hasattr(cls, "support"):
            raise PluginError(
                f"{where} it does not say what it is over; give the class a `support`, such as unibound.support.boolean"
            )
        _check_settings(where, cls)

    def require_free(self, name: str, owner: str) -> None:
        """Raise PluginError if a name is taken."""
        if self._owners.get(name) == owner:
            raise PluginError(f"{owner} registers the {self.label} {name!r} twice; rename one")
        if name in self._classes:
            raise PluginError(
                f"{owner} and {self._owners[name]} both register the {self.label} {name!r}; "
                f"rename one, or uninstall one of the two distributions"
            )


def _check_settings(where: str, cls: type) -> None:
    """Refuse settings that cannot be read: one such plugin would spoil the command line for all."""
    if not (attrs.has(cls) or issubclass(cls, nn.Module)):
        raise PluginError(f"{where} it is no record; decorate it with @attrs.frozen")
    try:
        fields = attrs.fields(settings_class(cls))
    except NameError as error:
        raise PluginError(f"{where} its annotations cannot be read: {error}; import what they name") from error
    for field in fields:
        if field.name == "name":
            raise PluginError(f"{where} a setting cannot be called 'name', which is the plugin's own; rename it")
        if field.type in (None, inspect.Parameter.empty):
            raise PluginError(f"{where} the setting {field.name!r} has no type; annotate it")
        try:
            default = field.default
            str(default.factory() if isinstance(default, attrs.Factory) and not default.takes_self else default)  # pyright: ignore
        except Exception as error:
            raise PluginError(f"{where} the default of {field.name!r} fails: {_one_line(error)}; mend it") from error


def did_you_mean(word: str, known: Mapping[str, Any] | list[str]) -> str:
    """Say what was probably meant, or what there is."""
    close = difflib.get_close_matches(word, list(known), n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there are: {', '.join(sorted(known))}" if known else "there are none"


def load(found: list[EntryPoint]) -> dict[str, Registry]:
    """Import every entry point and let its module register.

    A stranger's plugin that fails is reported on stderr and left out, and what it prints or changes for everybody is
    undone; a built-in that fails is an error.

    Raises:
        PluginError: a built-in that does not load, or two plugins that claim one name.
    """
    registries = {kind: Registry(kind, base) for kind, base in KINDS.items()}
    for point in sorted(found, key=lambda point: (distribution(point) != OWN_DISTRIBUTION, point.name)):
        if distribution(point) == OWN_DISTRIBUTION:
            enter(point, registries)
            continue
        try:
            with at_the_door() as said:
                enter(point, registries)
        except PluginError as error:
            print(f"unibound: left out: {printable(str(error))}", file=sys.stderr)
        else:
            for one in said:
                print(f"unibound: plugin {point.name!r} of {distribution(point)!r} {one}", file=sys.stderr)
    return registries


def enter(point: EntryPoint, registries: dict[str, Registry]) -> None:
    """Import one entry point and let its module register.

    Raises:
        PluginError: it does not load, or registers nothing, or what it may not.
    """
    owner = distribution(point)
    label = f"plugin {point.name!r} ({point.value}) of distribution {owner!r}"
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    try:
        module = point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever it is, nobody else is to suffer from it
        raise PluginError(f"{label} does not load: {_one_line(error)}; fix it, or pip uninstall {owner}") from error
    try:
        manager.register(module, name=label)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        hooks = [name for name in vars(hookspecs) if name.startswith("register_")]
        if unknown := _unknown_hook(manager, hooks):
            raise PluginError(
                f"{label} implements the unknown hook {unknown!r}; {did_you_mean(unknown, hooks)}"
            ) from error
        reason = str(error).splitlines()[-1]
        raise PluginError(f"{label} implements a hook wrongly: {reason}; see docs/hooks.md") from error
    if not any(hook.get_hookimpls() for hook in vars(manager.hook).values()):
        raise PluginError(f"{label} implements no hook; mark one with @unibound.hookimpl (see docs/hooks.md)")
    staged = {kind: Registry(kind, registry.base) for kind, registry in registries.items()}
    for kind, registry in staged.items():
        try:
            getattr(manager.hook, f"register_{kind}s")(register=functools.partial(registry.add, owner=label))
        except (PluginError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise PluginError(
                f"{label} fails to register: {_one_line(error)}; fix it, or pip uninstall {owner}"
            ) from error
    for kind, registry in staged.items():  # all of a module's plugins enter, or none
        for name in registry:
            registries[kind].require_free(name, owner)
    for kind, registry in staged.items():
        for name in registry:
            registries[kind].add(name, registry[name], owner)


def _one_line(error: BaseException) -> str:
    try:
        return " ".join(f"{type(error).__name__}: {error}".split())
    except Exception:  # that cannot even say what it is
        return type(error).__name__


def _unknown_hook(manager: pluggy.PluginManager, hooks: list[str]) -> str | None:
    return next((name for name in vars(manager.hook) if name not in hooks and not name.startswith("_")), None)


@functools.cache
def registries() -> dict[str, Registry]:
    """Every plugin installed, by kind; `KINDS` has their names."""
    return load(points())
