"""Every setting as a flag: the command line as the strongest layer.

Flags are sparse. The parser hands over only what a person typed, as text; `sources` reads it as the
field's type, so that a flag, a variable and a line of TOML are checked by the same code.
"""

import functools
import gc
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import attrs
from cyclopts import Group, Parameter, Token
from docstring_parser import ParseError, parse

from unibound.data.files import File, is_path
from unibound.data.hubs import Hub, is_hub
from unibound.guests import is_object
from unibound.hookspecs import printable
from unibound.registry import registries, settings_class
from unibound.settings.convert import Flag
from unibound.settings.records import KINDS, Chains, Optimizer, Settings, Stage
from unibound.settings.sources import Layer, nest

# What torch has imported is here to stay; looking through it for garbage takes longer than most commands.
gc.freeze()

SETTINGS = Group("Settings", sort_key=1)
OMITTED = ("stages", "optimizers")
READERS = {"file": File, "hub": Hub}
"""Data sets without a name of their own: what is typed for them is a path, or a name in another library."""


def accept(
    command: Callable[..., Any], parameters: list[inspect.Parameter], words: Sequence[str] | None = None
) -> Callable[..., Any]:
    """The same command with a flag for each of these parameters, where it has **settings.

    A parameter of the command's own hides the setting of the same name. Of words that name nothing but flags that there
    are, only those are made: the parser takes longer over hundreds of them than a short run takes.
    """

    @functools.wraps(command)
    def accepting(*values: Any, **named: Any) -> Any:
        return command(*values, **named)

    own = [one for one in inspect.signature(command).parameters.values() if one.kind is not one.VAR_KEYWORD]
    hidden = {one.name for one in own}
    every = [*own, *_typed_of([one for one in parameters if one.name not in hidden], hidden, words)]
    accepting.__signature__ = inspect.Signature(every)  # pyright: ignore[reportAttributeAccessIssue]
    accepting.__annotations__ = {one.name: one.annotation for one in every}
    return accepting


def _typed_of(
    parameters: list[inspect.Parameter], own: set[str], words: Sequence[str] | None
) -> list[inspect.Parameter]:
    """The parameters that words name; all of them for help, and to advise whoever typed a flag that is none."""
    known = {spell(one.name.replace("__", ".")): one for one in parameters}
    flags = {word.partition("=")[0] for word in words or ["--help"] if word.startswith("-")}
    if flags - known.keys() - {spell(name) for name in own}:
        return parameters
    return [one for flag, one in known.items() if flag in flags]


def as_layer(settings: dict[str, Any]) -> Layer:
    """What was typed of the settings that a command accepts."""
    typed: dict[str, Any] = {}
    for name, value in settings.items():
        if value is not None:
            nest(typed, name.split("__"), value)
    return Layer(typed, spell)


def flag_of(kind: str, setting: str) -> str:
    """The flag of a setting of plugins of a kind."""
    return spell(f"{next(field for field, chosen in KINDS.items() if chosen == kind)}.{setting}")


def of_run(words: Sequence[str] | None) -> list[inspect.Parameter]:
    """One parameter per setting of a run, and of every plugin it may choose.

    Help shows the settings of the plugins that the words name, and of the default ones where they name none; without
    words, of all.
    """
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
                if kind == "data_set":
                    shown = [*names, *READERS] if words is None else _read_by(_typed(field.name, words), default)
                else:
                    shown = names if words is None else _typed(field.name, words) or [default]
                parameters += _of_plugins(field.name, kind, shown)
            elif field.type in (Optimizer, Chains):
                parameters += _of_record(field.name, field.type, field.name.capitalize())
            else:
                parameters.append(_parameter((field.name,), field.type, texts, _shown(default_of(field))))
    return parameters + _of_stages(words or ())


def _of_stages(words: Sequence[str]) -> list[inspect.Parameter]:
    """One parameter for each setting of a stage that the words name, as --stage.2.epochs; `sources` knows which."""
    typed = dict.fromkeys(word.partition("=")[0] for word in words if word.startswith("--stage."))
    paths = [tuple(flag.removeprefix("--").replace("-", "_").split(".")) for flag in typed]
    return [
        _parameter(path, str, {}, None, show=False)
        for path in paths
        if all(part.isidentifier() or part.isdigit() for part in path)
    ]


def of_partition(words: Sequence[str] | None) -> list[inspect.Parameter]:
    """One parameter per setting of every partition estimator; help shows those of the ones named, or else all."""
    kind = "partition_estimator"
    return _of_plugins("partition", kind, _typed("partition", words or []) or list(registries()[kind]))


@functools.cache
def describe(cls: type) -> dict[str, str]:
    """What a class's docstring says of each setting."""
    try:
        found = parse(cls.__doc__ or "").params
    except ParseError:  # a stranger's, in a style of its own
        return {}
    return {entry.arg_name: printable(" ".join((entry.description or "").split())) for entry in found}


def spell(name: str) -> str:
    """A setting's dotted name as a flag."""
    return "--" + name.replace("_", "-")


def _of_plugins(name: str, kind: str, chosen: Sequence[str]) -> list[inspect.Parameter]:
    """The settings of every plugin of a kind; help shows those of the chosen ones.

    Plugins may share the name of a setting, and then share its flag.
    """
    known = dict(registries()[kind]) | {one: registries()[kind][one] for one in chosen if one and is_object(one)}
    known |= READERS if kind == "data_set" else {}
    owners: dict[str, dict[str, attrs.Attribute]] = {}
    for plugin in sorted(known, key=lambda plugin: plugin not in chosen):
        for field in attrs.fields(settings_class(known[plugin])):
            if (known[plugin], field.name) in ((File, "path"), (Hub, "source")):  # which is the name of the data itself
                continue
            owners.setdefault(field.name, {})[plugin] = field
    groups = {plugin: Group(f"{name.capitalize()} {plugin}", sort_key=2) for plugin in known}
    texts = {plugin: describe(cls) for plugin, cls in known.items()}
    parameters = []
    for setting, fields in owners.items():
        first = next(iter(fields))
        own = [plugin for plugin in fields if plugin in chosen]
        defaults = {plugin: _shown(default_of(fields[plugin])) for plugin in own or fields}
        alike = len(set(defaults.values())) == 1
        default = defaults[first] if alike else ", ".join(f"{plugin} {value}" for plugin, value in defaults.items())
        group = tuple(groups[plugin] for plugin in own)
        parameters.append(_parameter((name, setting), fields[first].type, texts[first], default, group, bool(own)))
    return parameters


def _typed(name: str, words: Sequence[str]) -> list[str]:
    """The names typed after --name, needed before parsing to know which settings help should show."""
    found = ""
    for word, following in itertools.pairwise([*words, ""]):
        if word == f"--{name}":
            found = following
        elif word.startswith(f"--{name}="):
            found = word.partition("=")[2]
    return [one.strip() for one in found.split(",") if one.strip()]


def _read_by(typed: Sequence[str], default: str) -> list[str]:
    """Whose settings help shows for the data that were typed; where none were, those of all that one may bring."""
    known = registries()["data_set"]
    return [
        "hub" if is_hub(name) else "file" if not is_object(name) and is_path(name, known) else name for name in typed
    ] or [default, *READERS]


def _of_record(prefix: str, cls: type, title: str) -> list[inspect.Parameter]:
    texts, group = describe(cls), Group(title, sort_key=2)
    return [
        _parameter((prefix, field.name), field.type, texts, _shown(default_of(field)), (group,))
        for field in attrs.fields(cls)
    ]


def _parameter(
    path: tuple[str, ...],
    kind: Any,
    texts: dict[str, str],
    default: str | None,
    group: tuple[Group, ...] = (SETTINGS,),
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
        show_default=lambda _: str(default),
    )
    return inspect.Parameter(
        "__".join(path), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, parameter]
    )


def _as_typed(_type: Any, tokens: Sequence[Token]) -> Flag:
    return Flag(",".join(token.value for token in tokens))


def default_of(field: attrs.Attribute) -> Any:
    """The default of a field, made anew where it has to be; NOTHING where there is none."""
    default = field.default
    return default.factory() if isinstance(default, attrs.Factory) else default  # pyright: ignore


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(map(str, default)) or "all"
    return str(default)
