"""Every plugin that is installed, in every variant of its settings, sits the exam of its kind."""

from collections.abc import Iterator
from typing import Any

import pytest

from unibound import registries
from unibound.testing import EXAMS, Exam, Law, variants


def sittings() -> Iterator[Any]:
    for kind, exam in EXAMS.items():
        for name, cls in registries()[kind].items():
            for words, plugin in variants(cls).items():
                slow = [pytest.mark.slow] if kind == "partition_estimator" and words else []
                for law in exam.laws:
                    yield pytest.param(exam, plugin, law, id=f"{kind}-{name} {words}-{law.name}", marks=slow)


@pytest.mark.parametrize(("exam", "plugin", "law"), list(sittings()))
def test_law_holds(exam: Exam, plugin: Any, law: Law) -> None:
    verdict = law.judge(lambda: exam.prepare(plugin))
    assert verdict.held, f"{law.statement}\n{verdict.detail}"


@pytest.mark.parametrize("kind", EXAMS)
def test_there_is_someone_to_examine(kind: str) -> None:
    assert len(registries()[kind]) > 0


@pytest.mark.parametrize("law", [law for exam in EXAMS.values() for law in exam.laws], ids=lambda law: law.name)
def test_every_law_has_a_statement(law: Law) -> None:
    assert law.statement.endswith(".")
