"""Data that have classes: what a run says of each."""

import json
from pathlib import Path

import pytest
import torch
from running import Cli, Words

from unibound import Splits, UsageError
from unibound.data import File
from unibound.data.binarization import binarize
from unibound.runs.result import by_class


def test_a_class_has_the_mean_of_its_own_bounds() -> None:
    bounds = torch.tensor([-1.0, -10.0, -3.0, -7.0], dtype=torch.float64)
    found = by_class(bounds, ["10", "9", "10", "2"])
    assert list(found) == ["2", "9", "10"]
    assert found["2"] == (1, 7.0, None)
    assert found["10"] == (2, 2.0, pytest.approx(1.0))
    assert by_class(bounds, ()) == {}


def test_labels_stay_where_bits_are_made_and_are_as_many_as_data() -> None:
    x = torch.rand(4, 3)
    splits = Splits(x, x[:2], x[:1], labels={"train": ["a", "b", "a", "b"]})
    assert binarize(splits, "threshold").labels == splits.labels
    with pytest.raises(UsageError, match="train has 4 data and 2 labels"):
        Splits(x, x[:2], x[:1], labels={"train": ["a", "b"]})


def test_a_run_says_which_class_it_knows_worst(cli: Cli, tiny: Words) -> None:
    rows = torch.randint(2, (300, 6), generator=torch.Generator().manual_seed(0))
    rows[::3] = 1
    lines = [",".join(map(str, row)) + ("," + "ab"[at % 3 > 0]) for at, row in enumerate(rows.tolist())]
    Path("x.csv").write_text("\n".join([",".join("uvwxyz") + ",class", *lines]) + "\n")
    assert cli(*tiny(data="x.csv", epochs=30, num_particles=50)).code == 0
    found = json.loads(Path("run/evaluation.json").read_text())
    counts = [found["classes"][name][0] for name in "ab"]
    assert sum(counts) == 30 == len(File(Path("x.csv")).load().test)
    a, b = (found["classes"][name][1] for name in "ab")
    assert a + 1 < b  # the same six bits each time, and any
    assert (counts[0] * a + counts[1] * b) / 30 == pytest.approx(found["nll"])
    assert cli("report", "run").code == 0
    page = Path("run/report.html").read_text()
    assert f'<th scope="row">b</th><td>{counts[1]}</td><td>{b:.2f} ' in page
    assert "Map of latents, classes of run" in page


def test_a_run_without_classes_says_nothing_of_them(cli: Cli, tiny: Words) -> None:
    Path("x.csv").write_text("\n".join(f"{row % 2},{row % 3 % 2}" for row in range(40)) + "\n")
    assert cli(*tiny(data="x.csv")).code == 0
    assert json.loads(Path("run/evaluation.json").read_text())["classes"] == {}
    assert not Path("run/classes.png").exists()
    assert cli("report", "run").code == 0
    assert "test data</th>" not in Path("run/report.html").read_text()
