"""Settings that are checked when a record of them is made, by whomever: text, TOML or Python."""

import functools
import inspect
import math
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin

import attrs

from unibound.errors import UsageError


class SettingError(UsageError, ValueError):
    """A setting that is not what its annotation, or its validator, asks for.

    Args:
        owner: class of the record.
        field: name of the setting.
        reason: what it must be, and is not.
    """

    def __init__(self, owner: type, field: str, reason: str) -> None:
        super().__init__(f"{owner.__name__.lower()}: {field} {reason}")
        self.field, self.reason = field, reason


class Record:
    """Base of whatever has settings: the fields of an attrs record, or the keyword-only parameters of a module.

    attrs leaves types to type checkers, so that a text in the place of a number would surface far from where it was
    given, or not at all. Here it is refused before the record is made.
    """

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        fields = _fields(cls)
        for name, value in _given(cls, args, kwargs).items():
            if name in fields and fields[name].converter is None:
                _require(cls, made, fields[name], value)
        return made


def settings_class(cls: type) -> type:
    """The attrs record of a plugin's settings.

    A record is its own; for a module it is made from the keyword-only parameters of its constructor.
    """
    return attrs.resolve_types(cls) if attrs.has(cls) else _settings_of_module(cls)


@functools.cache
def _settings_of_module(cls: type) -> type:
    parameters = inspect.signature(cls.__init__, eval_str=True).parameters.values()
    fields = {
        parameter.name: attrs.field(
            type=parameter.annotation,
            default=attrs.NOTHING if parameter.default is parameter.empty else parameter.default,
        )
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return attrs.make_class(cls.__name__, fields, bases=(Record,), frozen=True, class_body={"__doc__": cls.__doc__})


def _fields(cls: type) -> dict[str, Any]:
    """The settings of a class by the names they are given under; none where its annotations cannot be read."""
    try:
        return {field.alias: field for field in attrs.fields(settings_class(cls)) if field.alias}
    except NameError:  # whoever registers it is told
        return {}


def _given(cls: type, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    if not args:
        return kwargs
    try:
        return inspect.signature(cls.__init__).bind_partial(None, *args, **kwargs).arguments
    except TypeError:  # the constructor says it better
        return {}


def _require(cls: type, made: Any, field: Any, value: Any) -> None:
    """Raise SettingError unless a value is of its field's type, and its validator is content."""
    if not _fits(value, field.type):
        raise SettingError(cls, field.name, f"must be {_words(field.type)}, not {value!r}")
    if field.validator is not None:
        try:
            field.validator(made, field, value)
        except ValueError as error:
            # attrs' own put it so: 'hidden' must be >= 1: 0
            text = str(error).replace(f"'{field.name}'", field.name).removeprefix(f"{field.name} ")
            text = text.replace(f"Length of {field.name} must be", "must be of length")
            reason = text if ", not " in text else text.replace(": ", ", not ", 1)
            raise SettingError(cls, field.name, reason) from error


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type; an annotation that says nothing we can check fits everything."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is tuple and inner[1:] == (...,):
        return isinstance(value, tuple) and all(_fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) if isinstance(kind, type) and kind is not inspect.Parameter.empty else True


def _words(kind: Any) -> str:
    """A type in words, to be read after "must be"."""
    names: dict[Any, str] = {
        int: "a whole number", float: "a number", bool: "True or False", str: "a string", Path: "a path",
        NoneType: "None",
    }  # fmt: skip
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _either([str(choice) for choice in inner])
    if origin in (Union, UnionType):
        return _either([_words(one) for one in inner])
    if origin is tuple:
        return f"a tuple, each element {_words(inner[0])}"
    if origin is dict:
        return f"a dict, each key {_words(inner[0])} and each value {_words(inner[1])}"
    return names.get(kind, f"a {getattr(kind, '__name__', kind)}")


def _either(words: list[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
