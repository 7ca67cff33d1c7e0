"""Runs that are started at once: each gets a folder of its own, what one alone would have found, and none is lost."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from running import SCRIPT, Words

pytestmark = pytest.mark.slow


def begin(words: list[str]) -> subprocess.Popen[str]:
    """Start the real command, on one core and with nothing to compile."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "UNIBOUND_KERNELS": "reference"}
    return subprocess.Popen(
        [SCRIPT, *words], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def numbers(folder: Path) -> dict[str, object]:
    document = json.loads((folder / "evaluation.json").read_text())
    return {name: value for name, value in document.items() if name not in ("seconds", "run_dir")}


def nameless(words: list[str]) -> list[str]:
    at = words.index("--run-dir")
    return [*words[:at], *words[at + 2 :]]


def test_eight_runs_at_once_are_eight_runs(tiny: Words) -> None:
    processes = [begin(nameless(tiny(seed=seed % 4))) for seed in range(8)]
    assert [process.wait() for process in processes] == [0] * 8, [process.communicate() for process in processes]
    found: dict[int, list[dict[str, object]]] = {}
    for folder in Path("runs").iterdir():
        seed = int(folder.name.partition("seed")[2].partition("-")[0])
        assert f"seed = {seed}\n" in (folder / "resolved.toml").read_text()
        found.setdefault(seed, []).append(numbers(folder))
    assert {seed: len(both) for seed, both in found.items()} == dict.fromkeys(range(4), 2)
    assert all(one == other for one, other in found.values())
    assert len({json.dumps(one) for one, _ in found.values()}) == 4
    assert begin(tiny("alone", seed=2)).wait() == 0
    assert numbers(Path("alone")) == found[2][0]


def test_of_eight_in_one_folder_one_runs_and_the_others_say_so(tiny: Words) -> None:
    processes = [begin(tiny("one", seed=seed)) for seed in range(8)]
    said = [process.communicate()[1] for process in processes]
    (winner,) = [seed for seed, process in enumerate(processes) if process.returncode == 0]
    assert f"seed = {winner}\n" in Path("one/resolved.toml").read_text()
    assert {process.returncode for process in processes} == {0, 2}
    for seed, text in enumerate(said):
        if seed != winner:
            assert text.count("\n") == 1
            # Who comes while it is made finds a run there; who comes later, one that is being trained.
            assert any(words in text for words in ("holds a run already", "is being trained by"))
    assert begin(tiny("alone", seed=winner)).wait() == 0
    assert numbers(Path("alone")) == numbers(Path("one"))


def test_an_array_of_jobs_loses_none(tiny: Words) -> None:
    waiting, running = list(range(24)), []
    while waiting or running:
        while waiting and len(running) < 8:
            running.append(begin(nameless(tiny(seed=waiting.pop()))))
        first = running.pop(0)
        assert first.wait() == 0, first.communicate()
    names = [folder.name for folder in Path("runs").iterdir() if (folder / "evaluation.json").exists()]
    assert sorted(int(name.partition("seed")[2].partition("-")[0]) for name in names) == list(range(24))
