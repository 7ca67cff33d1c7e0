"""Read the settings of a run from layers (flags over environment over file), and write them as TOML."""

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import tomli_w
from cattrs import ClassValidationError, IterableValidationError
from cattrs.errors import AttributeValidationNote, ForbiddenExtraKeysError

from unibound.errors import UsageError
from unibound.record import SettingError, settings_class
from unibound.registry import did_you_mean, registries
from unibound.settings import defaults
from unibound.settings.convert import Flag, converter
from unibound.settings.recipes import recipes
from unibound.settings.records import KINDS, Settings, Stage


@attrs.frozen
class Layer:
    """Nested values from one source, which writes the dotted name of a setting in its own way."""

    values: dict[str, Any]
    spell: Callable[[str], str] = str


STAGE_FIELDS = tuple(field.name for field in attrs.fields(Stage))
TOP_FIELDS = ("stage", *STAGE_FIELDS, *(field.name for field in attrs.fields(Settings) if field.name != "stages"))
NO_SETTINGS = ("UNIBOUND_DATA_HOME", "UNIBOUND_DATA_DIR", "UNIBOUND_GOLDEN_DIR", "UNIBOUND_KERNELS", "UNIBOUND_PLUGINS")
"""Variables that say where things are on a machine, and nothing of a run."""


def resolve(layers: list[Layer]) -> Settings:
    """Merge layers, the strongest last, and read them as Settings.

    Fields of a stage may stand at the top level, where they are the defaults of every [[stage]] table. A layer may
    change a stage that another wrote: by its number, as `last`, or by its estimator where no other has that; the only
    one there is without a name.

    Raises:
        UsageError: an unknown name or an ill-typed value, with its source.
    """
    merged = _defaults()
    for layer in layers:
        for name in layer.values:
            if name not in TOP_FIELDS:
                raise UsageError(f"{layer.spell(name)}: {_unknown(name, TOP_FIELDS)}")
        merged = _merge(merged, _in_stages(merged.get("stage"), layer))
    base = {name: merged.pop(name) for name in STAGE_FIELDS if name in merged}
    tables = merged.pop("stage", [])
    if not (isinstance(tables, list) and all(isinstance(table, dict) for table in tables)):
        raise UsageError(f"{_spell(layers, ('stage',))}: must be written as [[stage]] tables")
    if tables and (stray := [name for name in base if _is_typed(base[name])]):
        where = _spell(layers, (stray[0],))
        cure = f"set it in one of their [[stage]] tables, or as stage.last.{stray[0]}"
        raise UsageError(f"{where}: cannot be set for a run of several stages; {cure}")
    merged["stages"] = [_merge(base, table) for table in tables or [{}]]
    try:
        return converter.structure(merged, Settings)
    except ClassValidationError as error:
        raise UsageError(_explain(error, layers, tables)) from error


def _in_stages(tables: Any, layer: Layer) -> dict[str, Any]:
    """What a layer says, with what it changes of the stages that others wrote, `{"stage": {"1": {...}}}`, in them."""
    values = dict(layer.values)
    changes = values.get("stage", {})
    if not isinstance(changes, dict):
        return values
    if isinstance(tables, list) and len(tables) == 1 and isinstance(tables[0], dict):
        tables = [_merge(tables[0], {name: values.pop(name) for name in STAGE_FIELDS if name in values})]
        values["stage"] = tables
    if not changes:
        return values
    if not tables or not isinstance(tables, list):
        which, change = next(iter(changes.items()))
        inner = f".{next(iter(change))}" if isinstance(change, dict) and change else ""
        where = layer.spell(f"stage.{which}{inner}")
        raise UsageError(f"{where}: this run has a single stage; set it as {layer.spell(inner[1:] or 'epochs')}")
    tables = list(tables)
    for which, change in changes.items():
        if not isinstance(change, dict):
            raise UsageError(f"{layer.spell(f'stage.{which}')}: names no setting; write stage.{which}.epochs, say")
        index = _index(tables, which, layer)
        tables[index] = _merge(tables[index], change)
    return values | {"stage": tables}


def _index(tables: list[dict[str, Any]], which: str, layer: Layer) -> int:
    """Where a stage stands that is named by its number, as the last, or by its estimator."""
    chosen = [table.get("estimator", {}) for table in tables]
    names = [str(one if isinstance(one, str) else one.get("name", defaults.ESTIMATOR)) for one in chosen]
    numbers = {str(number): number - 1 for number in range(1, len(names) + 1)} | {"last": len(names) - 1}
    if which in numbers:
        return numbers[which]
    if names.count(which) == 1:
        return names.index(which)
    found = ", ".join(f"{number} {name}" for number, name in enumerate(names, 1))
    raise UsageError(f"{layer.spell(f'stage.{which}')}: is no single stage; say which of {found}")


def read(path: Path) -> Layer:
    """Read a TOML file, or a recipe by its name, as a layer."""
    if not path.suffix and not path.exists():
        if str(path) not in recipes():
            raise UsageError(f"there is no file and no recipe {path}; {did_you_mean(str(path), list(recipes()))}")
        path = recipes()[str(path)]
    try:
        return parse(path.read_bytes().decode(), path)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}; name a TOML file of settings") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not readable as TOML: {error}") from error


def parse(text: str, path: Path) -> Layer:
    """Read TOML that stands in a file as a layer."""
    try:
        return Layer(tomllib.loads(text.replace("\r\n", "\n")), lambda name: f"{path}: {name}")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not readable as TOML: {error}") from error


def write(settings: Settings) -> str:
    """Settings as TOML, every default spelled out; reading it gives the same settings."""
    values = converter.unstructure(settings)
    stages = values.pop("stages")
    # One stage is written flat, so that flags still override it.
    values |= stages[0] if len(stages) == 1 else {"stage": stages}
    return tomli_w.dumps(_without_none(values))


def from_environment(prefix: str = "UNIBOUND_") -> Layer:
    """Read variables such as UNIBOUND_EPOCHS or UNIBOUND_ESTIMATOR__NUM_PARTICLES as a layer."""
    values: dict[str, Any] = {}
    for variable, text in os.environ.items():
        if variable.startswith(prefix) and variable not in NO_SETTINGS:
            nest(values, variable.removeprefix(prefix).lower().split("__"), Flag(text))
    return Layer(values, lambda name: prefix + name.upper().replace(".", "__"))


def share(field: str, names: Sequence[str], layers: list[Layer]) -> dict[str, list[Layer]]:
    """The layers for each of several plugins that one field may choose: a setting goes to all that have it.

    Raises:
        UsageError: an unknown name, or a setting that none of them has.
    """
    registry = registries()[KINDS[field]]
    known = {name: {one.name for one in attrs.fields(settings_class(registry[name]))} for name in names}
    every = set().union(*known.values())
    shared, own = [], []
    for layer in layers:
        shared.append(Layer({key: value for key, value in layer.values.items() if key != field}, layer.spell))
        chosen = layer.values.get(field, {})
        values = {} if isinstance(chosen, str) else {key: value for key, value in chosen.items() if key != "name"}
        for stray in sorted(values.keys() - every):
            where = layer.spell(f"{field}.{stray}")
            raise UsageError(f"{where}: no setting of {', '.join(names)}; {did_you_mean(stray, list(every))}")
        own.append(Layer(values, layer.spell))
    return {
        name: [
            *shared,
            Layer({field: {"name": name}}),
            *(Layer({field: {k: v for k, v in one.values.items() if k in known[name]}}, one.spell) for one in own),
        ]
        for name in names
    }


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


def _defaults() -> dict[str, Any]:
    """The plugin of each kind that settings are for where none is named."""
    fields = (*attrs.fields(Settings), *attrs.fields(Stage))
    return {field.name: {"name": name} for field in fields if (name := field.metadata.get("name"))}


def _spell(layers: list[Layer], path: tuple[str, ...]) -> str:
    """A setting, in the words of the strongest layer that holds it, or else the longest part of its path."""
    dotted = ".".join(path).removesuffix(".name")
    for length in range(len(path), 0, -1):
        for layer in reversed(layers):
            if _holds(layer.values, path[:length]):
                return layer.spell(dotted)
    return dotted


def _holds(values: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if isinstance(values, str):  # a plugin named without settings
            return key == "name"
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


def _is_typed(value: Any) -> bool:
    return any(map(_is_typed, value.values())) if isinstance(value, dict) else isinstance(value, Flag)


def _without_none(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_none(value) for key, value in values.items() if value is not None}
    return [_without_none(value) for value in values] if isinstance(values, list) else values


def _explain(error: BaseException, layers: list[Layer], tables: list[dict[str, Any]]) -> str:
    """One line on the first thing that is wrong: its source, its name there, and the cure."""
    keys: list[Any] = []
    while isinstance(error, ClassValidationError | IterableValidationError):
        noted, bare = error.group_exceptions()
        if not noted:
            error = bare[0]
            break
        error, note = noted[0]
        keys.append(note.name if isinstance(note, AttributeValidationNote) else note.index)
    name, text = _describe(error)
    path = tuple(key for key in [*keys, name] if isinstance(key, str) and key != "stages")
    if keys[:1] == ["stages"] and tables and path[0] in tables[keys[1]]:
        dotted = ".".join(path).removesuffix(".name")
        return f"{_spell(layers, ('stage',))} {keys[1] + 1}: {dotted}: {text}"
    return f"{_spell(layers, path)}: {text}"


def _describe(error: BaseException) -> tuple[str | None, str]:
    """The field at fault, where the path to the error ends at its record, and what is wrong."""
    if isinstance(error, ForbiddenExtraKeysError):
        name = sorted(error.extra_fields)[0]
        return name, _unknown(name, [field.name for field in attrs.fields(error.cl)])
    if isinstance(error, KeyError):
        return str(error.args[0]), "is missing"
    if isinstance(error, SettingError):
        return error.field, error.reason
    if broken := re.fullmatch(r"(\w+_\w+) (must be .*)", str(error)):
        return broken[1], broken[2]
    return None, str(error)


def _unknown(name: str, known: Iterable[str]) -> str:
    return f"unknown setting; {did_you_mean(name, list(known))}"
