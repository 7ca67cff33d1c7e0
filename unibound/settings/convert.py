"""Read plain values as settings, strictly: 5.5 is no whole number, and a name that nobody knows is an error."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs
from cattrs import ClassValidationError, Converter, IterableValidationError
from cattrs.errors import AttributeValidationNote, IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override

from unibound.data import hubs
from unibound.data.files import File, is_path
from unibound.data.hubs import Hub, is_hub
from unibound.errors import UsageError
from unibound.guests import absolute, is_object
from unibound.registry import did_you_mean, registries, settings_class
from unibound.settings.records import GIVEN, Chains, Choice, Given, Missing, Optimizer, Settings, Stage


class Flag(str):
    """A value as a person typed it, on the command line or in the environment; read as its field's type."""


def choice(kind: str, name: str) -> Choice:
    """A plugin with its default settings."""
    return Choice.of(kind, name)


def _scalar(
    kind: type, parse: Callable[[str], Any], accepts: tuple[type, ...], text: str, check: Callable = lambda _: True
) -> Callable:
    def structure(value: Any, _type: type) -> Any:
        try:
            if not isinstance(value, Flag) and type(value) not in accepts:
                raise ValueError
            parsed = parse(value) if isinstance(value, Flag) else kind(value)
        except ValueError:
            raise ValueError(f"must be {text}, not {str(value) if isinstance(value, Flag) else value!r}") from None
        if not check(parsed):
            raise ValueError(f"is out of range: {value}")
        return parsed

    return structure


def _table(structure: Callable) -> Callable:
    def checked(value: Any, kind: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError(f"must be a table of settings, not {value!r}")
        return structure(value, kind)

    return checked


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def _structure_literal(value: Any, kind: Any) -> Any:
    choices = {str(choice).lower(): choice for choice in get_args(kind)}  # true and false, as TOML spells them
    if isinstance(value, Flag) and value.lower() in choices:
        return choices[value.lower()]
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices.values()):
        raise ValueError(f"unknown choice {str(value)!r}; {did_you_mean(str(value), choices)}")
    return value


def _structure_tuple(value: Any, kind: Any) -> tuple:
    items = [Flag(item.strip()) for item in value.split(",") if item.strip()] if isinstance(value, Flag) else value
    if not isinstance(items, list | tuple):
        raise ValueError(f"must be a list, not {value!r}")
    structured = []
    for index, item in enumerate(items):
        try:
            structured.append(converter.structure(item, get_args(kind)[0]))
        except Exception as error:
            error.add_note(IterableValidationNote("", index, kind))  # pyright: ignore
            raise IterableValidationError("", [error], kind) from error  # pyright: ignore[reportCallIssue]
    return tuple(structured)


def _structure_choice(kind: str, default: str | None, *, may_miss: bool) -> Callable:
    def structure(value: Any, _type: Any) -> Choice | Missing | None:
        if value is None or isinstance(value, Choice | Missing):
            return value
        if not isinstance(value, str | Mapping):
            raise ValueError(f"must be a name or a table, not {value!r}")
        table = {"name": value} if isinstance(value, str) else {"name": default, **value}
        if (name := table.pop("name")) is None:
            raise ValueError(f"settings, but no name; there are: {', '.join(registries()[kind])}")
        if kind == "data_set" and is_hub(str(name)):
            source = hubs.absolute(str(name))
            return Choice(kind, source, Hub, converter.structure({"source": source, **table}, Hub))
        chosen = absolute(str(name)) if is_object(str(name)) else str(name)
        if kind == "data_set" and not is_object(chosen) and is_path(chosen, registries()[kind]):
            # Absolute, so that the run can be repeated from another folder.
            chosen = str(Path(chosen).expanduser().absolute())
            return Choice(kind, chosen, File, converter.structure({"path": chosen, **table}, File))
        if chosen == GIVEN and chosen not in registries()[kind]:
            return Given.of(kind)
        if may_miss and chosen == default and not table and chosen not in registries()[kind]:
            return Missing(kind, chosen)
        try:
            cls = registries()[kind][chosen]
        except UsageError as error:
            error.add_note(AttributeValidationNote("", "name", str))
            raise ClassValidationError("", [error], Choice) from error  # pyright: ignore[reportCallIssue]
        return Choice(kind, chosen, cls, converter.structure(table, settings_class(cls)))

    return structure


def _unstructure_choice(choice: Choice) -> dict[str, Any]:
    record = choice.settings
    named = {File: "path", Hub: "source"}.get(type(record))  # which is the name itself
    fields = [field for field in attrs.fields_dict(type(record)) if field != named]
    return {"name": choice.name} | {name: converter.unstructure(getattr(record, name)) for name in fields}


def _make_converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    converter.register_structure_hook(int, _scalar(int, int, (int,), "a whole number", lambda n: abs(n) < 2**63))
    converter.register_structure_hook(float, _scalar(float, float, (int, float), "a number", math.isfinite))
    converter.register_structure_hook(bool, _scalar(bool, _parse_bool, (bool,), "true or false"))
    converter.register_structure_hook(str, _scalar(str, str, (str,), "a string"))
    converter.register_structure_hook(Path, lambda value, _: Path(str(value)))
    converter.register_structure_hook_func(lambda kind: get_origin(kind) is Literal, _structure_literal)
    converter.register_structure_hook_func(lambda kind: get_origin(kind) is tuple, _structure_tuple)
    converter.register_unstructure_hook(Path, str)
    converter.register_unstructure_hook_func(
        lambda kind: get_origin(kind) is tuple, lambda value: [converter.unstructure(item) for item in value]
    )
    converter.register_unstructure_hook(Choice, _unstructure_choice)
    converter.register_unstructure_hook(Missing, lambda missing: {"name": missing.name})
    for cls in (Chains, Optimizer, Stage, Settings):
        choices = {
            field.name: override(
                struct_hook=_structure_choice(
                    field.metadata["kind"], field.metadata["name"], may_miss=Missing in get_args(field.type)
                )
            )
            for field in attrs.fields(cls)
            if "kind" in field.metadata
        }
        hook = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, **choices)  # pyright: ignore
        converter.register_structure_hook(cls, _table(hook))
        if cls is Optimizer:
            by_group = _table(converter.get_structure_hook(dict[str, Optimizer]))
            converter.register_structure_hook_func(lambda kind: kind == dict[str, Optimizer], by_group)
    return converter


converter = _make_converter()
