"""The exam that every plugin sits, built-in or third-party, and the small exact worlds it is held in."""

from unibound.testing.conformance import (
    EXAMS,
    Exam,
    examine_estimator,
    examine_likelihood,
    examine_model,
    examine_partition_estimator,
    examine_prior,
    examine_transition,
    plugins_of,
    variants,
)
from unibound.testing.replay import Replay, expected_bound, expected_gradient, rehearse, variance
from unibound.testing.verdict import Law, LawBroken, Verdict
from unibound.testing.worlds import World

__all__ = [
    "EXAMS",
    "Exam",
    "Law",
    "LawBroken",
    "Replay",
    "Verdict",
    "World",
    "examine_estimator",
    "examine_likelihood",
    "examine_model",
    "examine_partition_estimator",
    "examine_prior",
    "examine_transition",
    "expected_bound",
    "expected_gradient",
    "plugins_of",
    "rehearse",
    "variance",
    "variants",
]
