"""The exam: what every plugin must hold, built-in or third-party, kind by kind and law by law.

    for verdict in examine_estimator(MyEstimator):
        print("held" if verdict.held else "FAILED", verdict.law, verdict.detail)

Nothing here knows a plugin by name. A class is examined with the defaults of its settings; to examine
others hand in an instance, or whatever makes one when called.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin

import attrs

from unibound.energies.transition import Transition
from unibound.estimator import Estimator
from unibound.likelihood import Likelihood
from unibound.model import Model
from unibound.partition.log_z import PartitionEstimator
from unibound.prior import Prior
from unibound.registry import registries, settings_class
from unibound.testing.laws import (
    candidate,
    energy,
    form,
    gradient,
    likelihood,
    model,
    partition,
    prior,
    transition,
    value,
)
from unibound.testing.verdict import Law, Verdict


@attrs.frozen(eq=False)
class Exam:
    """What one kind of plugin is examined by.

    Args:
        prepare: makes of a plugin what the laws are handed.
        laws: in the order in which they are best read.
    """

    prepare: Callable[[Any], Any]
    laws: tuple[Law, ...]

    @classmethod
    def of(cls, prepare: Callable[[Any], Any], *functions: Callable[[Any], str]) -> "Exam":
        """The exam of some functions."""
        return cls(prepare, tuple(map(Law.of, functions)))

    def sit(self, plugin: Any) -> Iterator[Verdict]:
        """Judge a plugin by each law in turn."""
        return (law.judge(lambda: self.prepare(plugin)) for law in self.laws)


EXAMS: dict[str, Exam] = {
    "estimator": Exam.of(candidate.Candidate.of, *form.LAWS, *value.LAWS, *gradient.LAWS),
    "prior": Exam.of(prior.Subject.of, *prior.LAWS, *energy.LAWS),
    "partition_estimator": Exam.of(partition.Subject.of, *partition.LAWS),
    "likelihood": Exam.of(likelihood.Subject.of, *likelihood.LAWS),
    "model": Exam.of(model.Subject.of, *model.LAWS),
    "transition": Exam.of(transition.Subject.of, *transition.LAWS),
}
"""The exam of each kind of plugin that has one."""


def examine_estimator(plugin: Estimator | Callable[[], Estimator]) -> list[Verdict]:
    """Examine an estimator: form, value, and gradient against the exact one."""
    return list(EXAMS["estimator"].sit(plugin))


def examine_prior(plugin: Callable[[tuple[int, ...]], Prior]) -> list[Verdict]:
    """Examine a class of priors, or what makes one of an event shape; one with an energy sits more laws."""
    return list(EXAMS["prior"].sit(plugin))


def examine_partition_estimator(plugin: PartitionEstimator | Callable[[], PartitionEstimator]) -> list[Verdict]:
    """Examine a partition estimator on a prior whose log Z is known."""
    return list(EXAMS["partition_estimator"].sit(plugin))


def examine_likelihood(plugin: Likelihood | Callable[[], Likelihood]) -> list[Verdict]:
    """Examine a likelihood."""
    return list(EXAMS["likelihood"].sit(plugin))


def examine_model(plugin: Model | Callable[[], Model]) -> list[Verdict]:
    """Examine a model over bits."""
    return list(EXAMS["model"].sit(plugin))


def examine_transition(plugin: Transition | Callable[[], Transition]) -> list[Verdict]:
    """Examine a transition on every energy that it accepts."""
    return list(EXAMS["transition"].sit(plugin))


def plugins_of(package: str) -> list[tuple[str, str, type]]:
    """Kind, name and class of every plugin with an exam that a distribution, or a package, registers."""
    return [
        (kind, name, cls)
        for kind, registry in registries().items()
        for name, cls in registry.items()
        if kind in EXAMS and (registry.owner(name) == package or f"{cls.__module__}.".startswith(f"{package}."))
    ]


def variants(plugin: type) -> dict[str, Callable[..., Any]]:
    """A plugin as it is by default, and with each other choice of each setting that is one, by its words.

    Of a setting that is none, such as a number, the values in its metadata under `variants` are tried.
    """
    found: dict[str, Callable[..., Any]] = {"": plugin}
    for field in attrs.fields(settings_class(plugin)):
        choices = (False, True) if field.type is bool else get_args(field.type) if _is_choice(field.type) else ()
        choices = (*choices, *field.metadata.get("variants", ()))
        for choice in choices:
            if choice != field.default:
                found[f"{field.name}={choice}"] = functools.partial(plugin, **{field.name: choice})
    return found


def _is_choice(kind: Any) -> bool:
    return get_origin(kind) is Literal
