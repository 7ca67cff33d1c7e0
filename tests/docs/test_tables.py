"""The tables of the documents have a row for whatever is registered, and say of it what the code says."""

import re
from pathlib import Path

import pytest

from unibound import registries

DOCS = Path(__file__).parents[2] / "docs"


def rows(page: str) -> dict[str, str]:
    """Rows of all tables of a page, by the name in backticks that begins them."""
    return dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", (DOCS / page).read_text(), re.MULTILINE))


@pytest.mark.parametrize("kind", ["estimator", "partition_estimator"])
def test_theory_has_a_row_for_each(kind: str) -> None:
    missing = set(registries()[kind]) - rows("theory.md").keys()
    assert not missing, f"docs/theory.md: add a row for {missing}"


@pytest.mark.parametrize("kind", ["model", "transition"])
def test_theory_names_each(kind: str) -> None:
    text = (DOCS / "theory.md").read_text()
    missing = [name for name in registries()[kind] if f"`{name}`" not in text]
    assert not missing, f"docs/theory.md does not name {missing}"


GROUPS = frozenset({"q", "generator", "prior"})


def unbiased(name: str) -> frozenset[str]:
    """The groups without bias, as the last cell of an estimator's row words it."""
    bias = rows("theory.md")[name].replace("\\|", "/").split("|")[-1]
    match bias.partition(";")[0].split():
        case ["none"]:
            return GROUPS
        case ["none", "for", "the", group]:
            return frozenset({group})
        case ["as", other]:
            return unbiased(other.strip("`"))
        case [group, *_] if group in GROUPS:  # what this one does is the bias, and the only one
            return GROUPS - {group}
    return frozenset()


@pytest.mark.parametrize("name", registries()["estimator"])
def test_theory_says_of_bias_what_the_code_declares(name: str) -> None:
    assert unbiased(name) == registries()["estimator"][name]().unbiased


@pytest.mark.parametrize("kind", ["estimator", "likelihood", "model", "transition"])
def test_how_to_choose_names_each(kind: str) -> None:
    text = (DOCS / "how-to-choose.md").read_text()
    missing = [name for name in registries()[kind] if f"`{name}`" not in text]
    assert not missing, f"docs/how-to-choose.md does not name {missing}"
