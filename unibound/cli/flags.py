"""Every setting as a flag: the command line as the strongest layer.

Flags are sparse. The parser hands over only what a person typed, as text; `layers` reads it as the
field's type, so that a flag, a variable and a line of TOML are checked by the same code.
"""

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import attrs
from cyclopts import Group, Parameter, Token
from docstring_parser import parse

from unibound.registry import registries, settings_class
from unibound.settings.convert import Flag
from unibound.settings.records import Choice, Optimizer, Settings, Stage
from unibound.settings.sources import Layer, nest

SETTINGS = Group("Settings", sort_key=1)
OMITTED = ("stages", "optimizers")


def accept_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one keyword parameter per setting; it receives the typed ones as `flags: Layer`.

    A parameter of the command's own hides the setting of the same name.
    """

    def command(**values: Any) -> Any:
        own = {name: values.pop(name) for name in own_names if name in values}
        typed: dict[str, Any] = {}
        for name, value in values.items():
            if value is not None:
                nest(typed, name.split("__"), value)
        return function(**own, flags=Layer(typed, spell))

    own_parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "flags"]
    own_names = [parameter.name for parameter in own_parameters]
    parameters = [*own_parameters, *(one for one in _parameters() if one.name not in own_names)]
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def describe(cls: type) -> dict[str, str]:
    """What a class's docstring says of each setting."""
    return {entry.arg_name: " ".join((entry.description or "").split()) for entry in parse(cls.__doc__ or "").params}


def spell(name: str) -> str:
    """A setting's dotted name as a flag."""
    return "--" + name.replace("_", "-")


def _parameters() -> list[inspect.Parameter]:
    """One parameter per field of Settings and Stage, and per field of every plugin they may choose."""
    parameters = []
    for cls in (Settings, Stage):
        texts = describe(cls)
        for field in attrs.fields(cls):
            if field.name in OMITTED:
                continue
            if "kind" in field.metadata:
                kind, default = field.metadata["kind"], field.metadata["name"]
                names = tuple(registries()[kind])
                annotation = str if kind == "data_set" else Literal[names]
                parameters.append(_parameter((field.name,), annotation, texts, default))
                parameters += _plugin_parameters(field.name, kind, _typed(field.name) or default)
            elif field.type is Optimizer:
                parameters += _record_parameters(field.name, Optimizer, "Optimizer")
            else:
                parameters.append(_parameter((field.name,), field.type, texts, _default_of(field)))
    return parameters


def _plugin_parameters(name: str, kind: str, chosen: str | None) -> list[inspect.Parameter]:
    """The settings of every plugin of a kind; help shows those of the chosen one.

    Plugins may share the name of a setting, and then share its flag.
    """
    merged: dict[str, inspect.Parameter] = {}
    for plugin in sorted(registries()[kind], key=lambda plugin: plugin != chosen):
        cls = settings_class(registries()[kind][plugin])
        for parameter in _record_parameters(name, cls, f"{name.capitalize()} {plugin}", plugin == chosen):
            merged.setdefault(parameter.name, parameter)
    return list(merged.values())


def _typed(name: str) -> str | None:
    """What was typed after --name, needed before parsing to know which settings help should show."""
    for word, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        if word == f"--{name}":
            return following
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    return None


def _record_parameters(prefix: str, cls: type, title: str, show: bool = True) -> list[inspect.Parameter]:
    texts, group = describe(cls), Group(title, sort_key=2)
    return [
        _parameter((prefix, field.name), field.type, texts, _default_of(field), group, show)
        for field in attrs.fields(cls)
    ]


def _parameter(
    path: tuple[str, ...],
    kind: Any,
    texts: dict[str, str],
    default: Any,
    group: Group = SETTINGS,
    show: bool = True,
) -> inspect.Parameter:
    parameter = Parameter(
        name=spell(".".join(path)),
        help=texts.get(path[-1], ""),
        group=group,
        show=show,
        converter=_as_typed,
        n_tokens=1,
        negative=(),
        show_default=lambda _: _shown(default),
    )
    return inspect.Parameter(
        "__".join(path), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, parameter]
    )


def _as_typed(_type: Any, tokens: Sequence[Token]) -> Flag:
    return Flag(",".join(token.value for token in tokens))


def _default_of(field: attrs.Attribute) -> Any:
    default = field.default
    return default.factory() if isinstance(default, attrs.Factory) else default  # pyright: ignore


def _shown(default: Any) -> str:
    if isinstance(default, Choice):
        return default.name
    if isinstance(default, tuple):
        return ",".join(map(str, default)) or "all"
    return str(default)
