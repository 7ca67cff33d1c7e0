"""Read the settings of a run from layers (flags over environment over file), and write them as TOML."""

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs
import tomli_w
from cattrs import ClassValidationError, Converter, transform_error
from cattrs.errors import ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override

from unibound.data import File, is_path
from unibound.errors import UsageError
from unibound.registry import did_you_mean, registries, settings_class
from unibound.settings import Choice, Settings, Stage


class Flag(str):
    """A value as a person typed it, on the command line or in the environment; read as its field's type."""


@attrs.frozen
class Layer:
    """Nested values from one source, for error messages."""

    source: str
    values: dict[str, Any]


STAGE_FIELDS = tuple(field.name for field in attrs.fields(Stage))


def resolve(layers: list[Layer]) -> Settings:
    """Merge layers, the strongest last, and read them as Settings.

    Fields of a stage may stand at the top level, where they are the defaults of every [[stage]] table.

    Raises:
        UsageError: an unknown name or an ill-typed value, with its source.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge(merged, layer.values)
    base = {name: merged.pop(name) for name in STAGE_FIELDS if name in merged}
    tables = merged.pop("stage", None)
    if tables is not None and (stray := [name for name in base if _is_typed(base[name])]):
        raise UsageError(f"{stray[0]} cannot be set for a run of several stages; set it in their [[stage]] tables")
    if tables is not None and not (isinstance(tables, list) and all(isinstance(t, dict) for t in tables)):
        raise UsageError(f"{_source(layers, ('stage',))}: stage: must be written as [[stage]] tables")
    merged["stages"] = [_merge(base, table) for table in tables or [{}]]
    try:
        return _converter.structure(merged, Settings)
    except ClassValidationError as error:
        path, text = transform_error(error, path="", format_exception=_describe)[0].rsplit(" @ ", 1)[::-1]
        dotted = path.lstrip(".").replace("stages[0].", "").replace("stages", "stage")
        raise UsageError(f"{_source(layers, tuple(dotted.split('.')))}: {dotted}: {text}") from error


def choice(kind: str, name: str) -> Choice:
    """A plugin with its default settings."""
    return _structure_choice(kind, name)(name, Choice)


def read(path: Path) -> Layer:
    """Read a TOML file as a layer."""
    try:
        return Layer(str(path), tomllib.loads(path.read_text()))
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}; name a TOML file of settings") from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not readable as TOML: {error}") from error


def write(settings: Settings) -> str:
    """Settings as TOML, every default spelled out; reading it gives the same settings."""
    values = _converter.unstructure(settings)
    stages = values.pop("stages")
    # One stage is written flat, so that flags still override it.
    values |= stages[0] if len(stages) == 1 else {"stage": stages}
    return tomli_w.dumps(_without_none(values))


def from_environment(prefix: str = "UNIBOUND_") -> Layer:
    """Read variables such as UNIBOUND_EPOCHS or UNIBOUND_ESTIMATOR__NUM_PARTICLES as a layer."""
    values: dict[str, Any] = {}
    known = {field.name for field in attrs.fields(Settings)} | set(STAGE_FIELDS)
    for variable, text in os.environ.items():
        path = variable.removeprefix(prefix).lower().split("__")
        if variable.startswith(prefix) and path[0] in known:
            nest(values, path, Flag(text))
    return Layer("environment", values)


def nest(values: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a value deep in nested dictionaries; a plugin's own name goes beside its settings."""
    *parents, last = path
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            inner = values[parent] = {"name": inner}
        values = inner
    if isinstance(values.get(last), dict):
        values[last]["name"] = value
    else:
        values[last] = value


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `high` over `low`, table by table; naming another plugin drops the settings of the first."""
    merged = dict(low)
    for key, value in high.items():
        old = merged.get(key)
        new = {"name": value} if isinstance(value, str) and isinstance(old, dict) else value
        if isinstance(new, dict):
            old = {"name": old} if isinstance(old, str) else old or {}
            if "name" in new and str(new["name"]) != str(old.get("name", new["name"])):
                old = {}
            new = _merge(old, new)
        merged[key] = new
    return merged


def _source(layers: list[Layer], path: tuple[str, ...]) -> str:
    """The strongest layer that holds the path, or the longest part of it that any layer holds."""
    for length in range(len(path), 0, -1):
        for layer in reversed(layers):
            value: Any = layer.values
            for key in path[:length]:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                return layer.source
    return layers[-1].source if layers else "settings"


def _is_typed(value: Any) -> bool:
    return any(map(_is_typed, value.values())) if isinstance(value, dict) else isinstance(value, Flag)


def _without_none(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_none(value) for key, value in values.items() if value is not None}
    return [_without_none(value) for value in values] if isinstance(values, list) else values


def _describe(error: BaseException, _type: type | None) -> str:
    if isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in attrs.fields(error.cl)]
        name = sorted(error.extra_fields)[0]
        return f"unknown setting {name!r}; {did_you_mean(name, known)}"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error)


def _scalar(kind: type, parse: Callable[[str], Any], accepts: tuple[type, ...], text: str) -> Callable:
    def structure(value: Any, _type: type) -> Any:
        if isinstance(value, Flag):
            try:
                return parse(value)
            except ValueError:
                raise ValueError(f"must be {text}, not {str(value)!r}") from None
        if type(value) not in accepts:
            raise ValueError(f"must be {text}, not {value!r}")
        return kind(value)

    return structure


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def _structure_literal(value: Any, kind: Any) -> Any:
    if value not in get_args(kind):
        choices = [str(choice) for choice in get_args(kind)]
        raise ValueError(f"unknown choice {str(value)!r}; {did_you_mean(str(value), choices)}")
    return get_args(kind)[get_args(kind).index(value)]


def _structure_tuple(value: Any, kind: Any) -> tuple:
    items = [Flag(item.strip()) for item in value.split(",") if item.strip()] if isinstance(value, Flag) else value
    if not isinstance(items, list | tuple):
        raise ValueError(f"must be a list, not {value!r}")
    return tuple(_converter.structure(item, get_args(kind)[0]) for item in items)


def _structure_choice(kind: str, default: str | None) -> Callable:
    def structure(value: Any, _type: Any) -> Choice | None:
        if value is None or isinstance(value, Choice):
            return value
        table = {"name": value} if isinstance(value, str) else dict(value)
        chosen = str(table.pop("name", default))
        if kind == "data_set" and is_path(chosen, registries()[kind]):
            return Choice(kind, chosen, _converter.structure({"path": chosen, **table}, File))
        return Choice(kind, chosen, _converter.structure(table, settings_class(registries()[kind][chosen])))

    return structure


def _unstructure_choice(choice: Choice) -> dict[str, Any]:
    record = choice.settings
    fields = attrs.fields_dict(type(record)) if not isinstance(record, File) else {}
    return {"name": choice.name} | {name: _converter.unstructure(getattr(record, name)) for name in fields}


def _make_converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    converter.register_structure_hook(int, _scalar(int, int, (int,), "a whole number"))
    converter.register_structure_hook(float, _scalar(float, float, (int, float), "a number"))
    converter.register_structure_hook(bool, _scalar(bool, _parse_bool, (bool,), "true or false"))
    converter.register_structure_hook(str, _scalar(str, str, (str,), "a string"))
    converter.register_structure_hook(Path, lambda value, _: Path(str(value)))
    converter.register_structure_hook_func(lambda kind: get_origin(kind) is Literal, _structure_literal)
    converter.register_structure_hook_func(lambda kind: get_origin(kind) is tuple, _structure_tuple)
    converter.register_unstructure_hook(Path, str)
    converter.register_unstructure_hook_func(
        lambda kind: get_origin(kind) is tuple, lambda value: [_converter.unstructure(item) for item in value]
    )
    converter.register_unstructure_hook(Choice, _unstructure_choice)
    for cls in (Stage, Settings):
        choices = {
            field.name: override(struct_hook=_structure_choice(field.metadata["kind"], field.metadata["name"]))
            for field in attrs.fields(cls)
            if "kind" in field.metadata
        }
        hook = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, **choices)
        converter.register_structure_hook(cls, hook)
    return converter


_converter = _make_converter()
