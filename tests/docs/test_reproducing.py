"""The page of results says what the ledger says, and the ledger what a run's files say."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from unibound.settings.recipes import recipes

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The module, with files of its own."""
    spec = importlib.util.spec_from_file_location("ledger", ROOT / "benches" / "ledger.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("LEDGER", "PAGE"):
        copy = tmp_path / getattr(module, name).name
        copy.write_text(getattr(module, name).read_text())
        monkeypatch.setattr(module, name, copy)
    return module


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a finished run."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "resolved.toml").write_text('seed = 3\n[data]\nname = "binarized_mnist"\n')
    environment = {"command": ["/bin/unibound", "run", "--config", "mnist-iwae", "--seed", "3"], "commit": "abc123"}
    environment |= {"data_sha256": "0" * 64, "processor": "a CPU", "threads": 1, "torch": "2.6"}
    (folder / "env.json").write_text(json.dumps(environment))
    found = {"num_particles": 7, "partition": None, "nll": 99.25, "nll_stderr": 0.5, "nll_low": None}
    found |= {"nll_high": 100.25, "train_nll": 98.0, "seconds": 1800.4}
    (folder / "evaluation.json").write_text(json.dumps(found))
    return folder


def test_page_is_made_from_the_ledger(ledger: ModuleType) -> None:
    text = ledger.PAGE.read_text()
    assert ledger.page(text, ledger.read()) == text, "make it anew: python benches/ledger.py page"


def test_every_published_row_has_a_recipe(ledger: ModuleType) -> None:
    published = [one for one in ledger.read() if one["published"]]
    assert len(published) == 5
    assert {one["recipe"] for one in published} <= recipes().keys()
    assert all(one["source"] for one in published)


def test_results_are_of_recipes_that_come_with_the_package(ledger: ModuleType) -> None:
    for one in ledger.read():
        if not one["published"]:
            assert one["recipe"] in recipes()
            assert f"| `{one['recipe']}` |" in ledger.PAGE.read_text()
            assert not one["commit"].endswith("+"), "a result of code that was not committed"


def test_a_run_is_entered_and_shown(ledger: ModuleType, run: Path) -> None:
    ledger.main(["add", str(run)])
    ledger.main(["page"])
    text = ledger.PAGE.read_text()
    row = "| `mnist-iwae` | 87.10 | 99.25 ± 0.50 | +12.15 | [, 100.25] | 98.00 | 3 | 7 | 0.50 | `abc123` |"
    assert row in text
    assert "`unibound run --config mnist-iwae --seed 3`" in text
    ledger.main(["page"])
    assert ledger.PAGE.read_text() == text


def test_a_later_evaluation_takes_the_place_of_the_first(ledger: ModuleType, run: Path, tmp_path: Path) -> None:
    later = json.loads((run / "evaluation.json").read_text()) | {"num_particles": 50_000, "nll": 98.5, "nll_low": 97.0}
    later["estimates"] = [{"partition": "ais", "nll": 98.5}, {"partition": "raise", "nll": 98.75}]
    (tmp_path / "later.json").write_text(json.dumps(later))
    ledger.main(["add", str(run), str(tmp_path / "later.json")])
    ledger.main(["page"])
    assert "| 98.50 (98.75) ± 0.50 | +11.40 | [97.00, 100.25] | 98.00 | 3 | 50000 |" in ledger.PAGE.read_text()


def test_of_two_results_of_a_seed_the_newer_is_shown(ledger: ModuleType, run: Path) -> None:
    ledger.main(["add", str(run)])
    found = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(json.dumps(found | {"nll": 97.75}))
    ledger.main(["add", str(run)])
    ledger.main(["page"])
    text = ledger.PAGE.read_text()
    assert "| 87.10 | 97.75 ± 0.50 |" in text
    assert "| 87.10 | 99.25 ± 0.50 |" not in text
    assert text.count("--config mnist-iwae --seed 3") == 1


def test_without_results_cells_stay_empty(ledger: ModuleType) -> None:
    published = [one for one in ledger.read() if one["published"]]
    for line in ledger.table(published).splitlines()[2:]:
        assert [cell.strip() for cell in line.split("|")[3:-1]] == [""] * 8


def test_a_run_without_a_recipe_is_refused(ledger: ModuleType, run: Path) -> None:
    environment = json.loads((run / "env.json").read_text()) | {"command": ["unibound", "run", "--prior", "rbm"]}
    (run / "env.json").write_text(json.dumps(environment))
    with pytest.raises(SystemExit, match="not started from a recipe"):
        ledger.main(["add", str(run)])
