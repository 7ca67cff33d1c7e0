"""Tests hold on any machine and can fail: what hangs on speed, or accepts either outcome, is seen in their syntax."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[2]
FILES = sorted(path for folder in ("tests", "examples") for path in (ROOT / folder).rglob("*.py"))

CLOCKS = {"perf_counter", "monotonic", "process_time", "thread_time"}
CORES = {"cpu_count", "process_cpu_count", "sched_getaffinity", "get_num_threads"}
ANYTHING = {"Exception", "BaseException"}


def faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and complaint of whatever a test should not hang on."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) if name.removesuffix("_ns") in CLOCKS:
                yield node.lineno, f"{name}: a busy machine is slow; assert what was done, not how fast"
            case ast.Attribute(attr=name) | ast.Name(id=name) if name in CORES:
                yield node.lineno, f"{name}: machines differ; set what the test needs"
            case ast.keyword(arg="deadline" | "timeout" as name, value=value) if ast.unparse(value) != "None":
                yield value.lineno, f"{name}: a busy machine misses it; pytest ends what hangs"
            case ast.Assert(test=ast.BoolOp(op=ast.Or())):
                yield node.lineno, "assert ... or ...: build a case of each, in which it must be so"
            case ast.Call(func=ast.Attribute(attr="raises"), args=[ast.Tuple(), *_]):
                yield node.lineno, "raises((..., ...)): say which"
            case ast.ExceptHandler(type=None | ast.Name(id="Exception" | "BaseException")):
                yield node.lineno, "except Exception: swallows what the test should say"
            case ast.Call(func=ast.Attribute(attr="suppress"), args=kinds) if ANYTHING & {*map(ast.unparse, kinds)}:
                yield node.lineno, "suppress(Exception): swallows what the test should say"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_holds_anywhere_and_can_fail(path: Path) -> None:
    assert [f"line {line}: {words}" for line, words in faults(ast.parse(path.read_text()))] == []


@pytest.mark.parametrize(
    "code",
    [
        "start = time.perf_counter_ns()",
        "assert monotonic() - start < 1",
        "assert os.cpu_count() > 1",
        "@settings(max_examples=3, deadline=200)\ndef test(): ...",
        "process.communicate(timeout=60)",
        "assert code == 0 or code == 1",
        "with pytest.raises((ValueError, TypeError)): ...",
        "try: ...\nexcept Exception: ...",
        "try: ...\nexcept: ...",
        "with contextlib.suppress(Exception): ...",
    ],
)
def test_what_is_forbidden_is_seen(code: str) -> None:
    assert len(list(faults(ast.parse(code)))) == 1


@pytest.mark.parametrize(
    "code", ["settings(deadline=None)", "assert (a or b) == c", "with pytest.raises(ValueError): ...", "time.sleep(1)"]
)
def test_what_is_allowed_is_left_alone(code: str) -> None:
    assert list(faults(ast.parse(code))) == []


def test_hypothesis_has_no_deadline_and_the_same_examples_everywhere() -> None:
    chosen = settings()
    assert (chosen.deadline, chosen.derandomize) == (None, True)
    assert HealthCheck.too_slow in chosen.suppress_health_check
