"""Sizes below nothing, of every plugin that has any: a line of ours, or a model that trains."""

import contextlib

import attrs
import pytest

from unibound import UsageError, registries
from unibound.cli.matrix import configure, settings_of, small_data
from unibound.registry import settings_class
from unibound.settings.convert import choice
from unibound.settings.records import Settings

KINDS = ("prior", "model", "estimator", "transition")


def numbers(kind: str, name: str) -> list[str]:
    """The settings of a plugin that are whole numbers, or lists of them."""
    return [
        field.name
        for field in attrs.fields(settings_class(registries()[kind][name]))
        if field.type in (int, tuple[int, ...])
    ]


SIZES = [(kind, name, field) for kind in KINDS for name in registries()[kind] for field in numbers(kind, name)]


def built(kind: str, name: str, field: str, value: int) -> None:
    """What a run does with such a setting before its first step."""
    found = choice(kind, name)
    cls = settings_class(registries()[kind][name])
    value_of = (value,) if attrs.fields_dict(cls)[field].type == tuple[int, ...] else value
    found = attrs.evolve(found, settings=attrs.evolve(found.settings, **{field: value_of}))
    settings = settings_of("vimco", "rbm", "mlp")
    if kind == "estimator":
        settings = attrs.evolve(settings, stages=(attrs.evolve(settings.stages[0], estimator=found),))
    else:
        settings = attrs.evolve(settings, **{kind: found})
    assert isinstance(settings, Settings)
    configure(settings, small_data())


@pytest.mark.parametrize(("kind", "name", "field"), SIZES, ids=map("-".join, SIZES))
@pytest.mark.parametrize("value", [-1, 0])
def test_a_size_below_one_is_refused_or_means_something(kind: str, name: str, field: str, value: int) -> None:
    with contextlib.suppress(UsageError):
        built(kind, name, field, value)
