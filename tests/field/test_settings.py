"""A record of settings made in Python is as strict as one that was read, for every plugin there is."""

import copy
import pickle
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

import attrs
import pytest
import torch
from torch import Tensor

from unibound import Estimate, Estimator, JointBound, Prior, UsageError, registries
from unibound.registry import Registry, settings_class
from unibound.settings.convert import choice, converter
from unibound.settings.records import Optimizer, Settings, Stage
from unibound.settings.sources import Layer, resolve
from unibound.support import boolean

FIELDS = [
    (kind, name, field)
    for kind, registry in registries().items()
    for name, cls in registry.items()
    for field in attrs.fields(settings_class(cls))
]
MAKERS: dict[str, Any] = {"Optimizer": Optimizer, "Stage": Stage, "Settings": Settings}
PRINTED = [f"{kind}-{name}-{field.name}" for kind, name, field in FIELDS]


def made(kind: str, name: str, /, **settings: Any) -> Any:
    cls = registries()[kind][name]
    return cls((4,), **settings) if issubclass(cls, Prior) else cls(**settings)


def wrong(kind: Any) -> list[Any]:
    """Values that are none of an annotated type."""
    if get_origin(kind) is Literal:
        return ["gelu", 1, None]
    if kind is int:
        return ["5", 5.0, True, None, [5]]
    if kind is float:
        return ["0.5", False, None, float("nan"), float("inf")]
    if kind is bool:
        return [1, "true", None]
    if get_origin(kind) is tuple:
        return [[8], (8, "x"), (True,), 8, "8"]
    if kind is str:
        return [5, None, b"x"]
    return ["5", 1.5] if int in get_args(kind) else [5]


@pytest.mark.parametrize(("kind", "name", "field"), FIELDS, ids=PRINTED)
def test_a_value_of_another_type_is_refused(kind: str, name: str, field: Any) -> None:
    record = settings_class(registries()[kind][name])
    for value in wrong(field.type):
        for make in (lambda **given: made(kind, name, **given), record):
            with pytest.raises(UsageError, match=rf"^{record.__name__.lower()}: {field.name} must be ") as caught:
                make(**{field.name: value})
            assert str(caught.value).endswith(f"not {value!r}")


@pytest.mark.parametrize(("kind", "name", "field"), FIELDS, ids=PRINTED)
def test_its_own_default_is_accepted(kind: str, name: str, field: Any) -> None:
    if field.default is not attrs.NOTHING and not isinstance(field.default, attrs.Factory):  # pyright: ignore
        made(kind, name, **{field.name: field.default})


@pytest.mark.parametrize("kind", registries())
def test_records_are_copied_pickled_changed_and_written(kind: str) -> None:
    for name, cls in registries()[kind].items():
        record = choice(kind, name).settings
        assert pickle.loads(pickle.dumps(record)) == record if attrs.has(cls) else True
        assert copy.deepcopy(record) == record
        assert attrs.evolve(record) == record
        assert converter.structure(converter.unstructure(record), type(record)) == record


def test_a_whole_number_is_a_number_and_positions_are_looked_at_too() -> None:
    vimco, mlp = registries()["estimator"]["vimco"], registries()["model"]["mlp"]
    assert Optimizer(learning_rate=1).learning_rate == 1
    assert vimco(3).num_particles == 3
    with pytest.raises(UsageError, match="vimco: num_particles must be a whole number, not '3'"):
        vimco("3")
    with pytest.raises(UsageError, match=r"mlp: hidden must be a tuple, each element a whole number, not \(8, 8\.5\)"):
        attrs.evolve(mlp(), hidden=(8, 8.5))
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        mlp(depth=3)


def test_what_a_validator_refuses_is_a_usage_error_too() -> None:
    with pytest.raises(UsageError, match=r"^mlp: num_latents must be >= 1, not 0$"):
        registries()["model"]["mlp"](num_latents=0)
    with pytest.raises(UsageError, match=r"^resnet: maps must be of length >= 1, not 0$"):
        registries()["model"]["resnet"](maps=())
    with pytest.raises(UsageError, match=r"^--model.num-latents: must be >= 1, not 0$"):
        resolve([Layer({"model": {"name": "mlp", "num_latents": 0}}, lambda name: f"--{name.replace('_', '-')}")])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: MAKERS["Optimizer"](algorithm="adagrad"),
            "optimizer: algorithm must be adam, adamax or sgd",
        ),
        (lambda: MAKERS["Stage"](epochs=1.5), "stage: epochs must be a whole number"),
        (lambda: MAKERS["Stage"](trains="prior"), "stage: trains must be a tuple"),
        (lambda: MAKERS["Stage"](optimizers={"q": 0.1}), "stage: optimizers must be a dict"),
        (lambda: MAKERS["Settings"](batch_size="50"), "settings: batch_size must be a whole number"),
        (lambda: MAKERS["Settings"](binarization="fuzzy"), "settings: binarization must be"),
        (lambda: MAKERS["Settings"](stages=[Stage()]), "settings: stages must be a tuple"),
        (lambda: MAKERS["Settings"](mixed_precision=1), "settings: mixed_precision must be True, False or auto, not 1"),
    ],
)
def test_so_are_the_settings_of_a_run(make: Callable[[], object], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert str(caught.value).startswith(text)


@attrs.frozen
class Strange(Estimator):
    """An estimator of a stranger's, whose own check after making comes second."""

    pace: float | None = None
    kind: Literal["slow", "fast"] = "slow"

    def __attrs_post_init__(self) -> None:
        if self.pace is not None and self.pace < 0:
            raise UsageError("strange: a negative pace")

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        raise AssertionError


class Odd(Prior):
    """A prior of a stranger's; only its keyword-only parameters are settings."""

    support = boolean

    def __init__(self, event_shape: tuple[int, ...], anything: object = None, *, rate: float = 0.5) -> None:
        super().__init__(event_shape)
        self.rate = torch.nn.Parameter(torch.tensor(rate))

    def log_prob(self, tau: Tensor) -> Tensor:
        raise AssertionError

    def sample(self, count: int) -> Tensor:
        raise AssertionError


def test_a_strangers_plugin_profits() -> None:
    Registry("estimator", Estimator).add("strange", Strange, "a stranger")
    with pytest.raises(UsageError, match="strange: pace must be a number or None, not '1'"):
        Strange(pace="1")  # pyright: ignore
    with pytest.raises(UsageError, match="strange: kind must be slow or fast, not 'medium'"):
        Strange(kind="medium")  # pyright: ignore
    with pytest.raises(UsageError, match="a negative pace"):
        Strange(-1.0)
    assert Strange(1).pace == 1
    with pytest.raises(UsageError, match=r"odd: rate must be a number, not '0\.5'"):
        Odd((3,), rate="0.5")  # pyright: ignore
    prior = Odd((3,), "anything", rate=0.25)
    assert torch.equal(copy.deepcopy(prior).rate, prior.rate)
    assert torch.equal(pickle.loads(pickle.dumps(prior)).rate, prior.rate)
