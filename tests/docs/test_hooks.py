"""What the page of hooks shows of each kind of plugin holds the laws of that kind."""

import re
from pathlib import Path
from typing import Any

import pytest

from unibound import registries
from unibound.testing import EXAMS, examine_prior
from unibound.testing.priors import Well

PAGE = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()


def shown(kind: str) -> type:
    """The class that the page's example of a kind registers."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (code,) = (block for block in blocks if f"def register_{kind}s(" in block)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "example", "exec"), names)
    entered: dict[str, type] = {}
    names[f"register_{kind}s"](register=entered.__setitem__)
    (cls,) = entered.values()
    return cls


@pytest.mark.parametrize("kind", EXAMS)
def test_the_example_holds_every_law(kind: str) -> None:
    verdicts = list(EXAMS[kind].sit(shown(kind)))
    assert len(verdicts) > 3
    assert [verdict for verdict in verdicts if not verdict.held] == []


def test_the_transition_leaves_an_energy_over_reals_invariant() -> None:
    def moved(event_shape: tuple[int, ...]) -> Well:
        prior = Well(event_shape)
        prior.transition = shown("transition")(step=1.5)
        return prior

    verdicts = {verdict.law: verdict for verdict in examine_prior(moved)}
    assert "moves_leave_p_beta_invariant" in verdicts
    assert [verdict for verdict in verdicts.values() if not verdict.held] == []


def test_there_is_an_example_of_each_kind() -> None:
    assert all(issubclass(shown(kind), registry.base) for kind, registry in registries().items())
