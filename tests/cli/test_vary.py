"""`unibound compare` over any setting: paired by datum, and several runs at once with the same numbers."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hurting import die, refuse
from running import TINY, Cli, refused, words_of

from unibound import UniboundError, UsageError
from unibound.runs import checkpoint
from unibound.runs.jobs import each

SMALL = words_of(TINY | {"epochs": 1, "seeds": 1, "evaluation-particles": 3})
SMALL = [word for at, word in enumerate(SMALL) if "--num-particles" not in SMALL[max(0, at - 1) : at + 1]]
WORDS = ["compare", *SMALL, "--vary", "prior.num-hidden=2,4", "--out", "here"]


def rows(result: Any) -> list[dict[str, Any]]:
    assert result.code == 0, result
    return json.loads(result.out)["rows"]


def test_any_setting_varies_and_is_paired_by_datum(cli: Cli) -> None:
    first, second = rows(cli(*WORDS, "--json"))
    assert (first["varied"], second["varied"]) == ({"prior.num_hidden": "2"}, {"prior.num_hidden": "4"})
    assert first["estimator"] == "vimco"
    assert (first["difference"], first["difference_stderr"]) == (None, None)
    names = [f"here/vimco-prior.num_hidden={size}-seed0" for size in (2, 4)]
    assert all(Path(name, "resolved.toml").exists() for name in names)
    bounds = [torch.tensor(json.loads(Path(name, "cell.json").read_text())["bounds"]).double() for name in names]
    gap = bounds[0] - bounds[1]
    assert second["difference"] == pytest.approx(second["nll"] - first["nll"])
    assert second["difference_stderr"] == pytest.approx(gap.std().item() / math.sqrt(len(gap)))
    paired = cli("compare", *names, "--evaluation-particles", 3, "--json")
    other = json.loads(paired.out)["runs"][1]
    assert (other["difference"], other["stderr"]) == pytest.approx((second["difference"], second["difference_stderr"]))
    shown = cli(*WORDS).out
    assert "vimco prior.num-hidden=4" in shown
    assert f"{second['difference']:+.3f} ± {second['difference_stderr']:.3f}" in shown


def test_a_cell_is_the_run_of_its_settings_whatever_was_trained_before(cli: Cli) -> None:
    assert cli(*WORDS, "--json").code == 0
    for size in (2, 4):
        cell = Path(f"here/vimco-prior.num_hidden={size}-seed0")
        assert cli("run", "--config", cell / "resolved.toml", "--run-dir", f"alone{size}").code == 0
        one, other = (
            checkpoint.load_weights(checkpoint.newest(run / "checkpoints")) for run in (cell, Path(f"alone{size}"))
        )
        assert all(torch.equal(one[name], other[name]) for name in one | other)


@pytest.mark.slow  # new processes import everything anew
def test_jobs_have_the_numbers_of_a_series(cli: Cli) -> None:
    series, jobs = rows(cli(*WORDS, "--json")), rows(cli(*WORDS[:-1], "there", "--jobs", 2, "--json"))
    for one, other in zip(series, jobs, strict=True):
        assert {**one, "seconds_per_step": 0} == {**other, "seconds_per_step": 0}
    assert rows(cli(*WORDS[:-1], "there", "--jobs", 2, "--json")) == jobs, "it was not done again"


def test_several_settings_and_names_of_plugins_vary(cli: Cli) -> None:
    words = [
        "compare",
        *SMALL,
        "--vary",
        "estimator=vimco,nvil",
        "--vary",
        "model.hidden=8,6;5",
        "--json",
    ]
    every = [(row["varied"]["estimator"], row["varied"]["model.hidden"]) for row in rows(cli(*words))]
    assert every == [("vimco", "8,6"), ("vimco", "5"), ("nvil", "8,6"), ("nvil", "5")]


def test_other_data_are_not_paired(cli: Cli) -> None:
    words = ["compare", *SMALL, "--vary", "binarization=threshold,static", "--json"]
    assert [row["difference"] for row in rows(cli(*words))] == [None, None]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vary", "prior.num-hidden"], "--vary must be a setting and values, each once"),
        (["--vary", "prior.num-hidden=2,2"], "--vary must be a setting and values, each once"),
        (["--vary", "epochs=1", "--vary", "epochs=2"], "--vary must be a setting and values, each once"),
        (["--vary", "seed=1,2"], "--seeds says how many seeds each has"),
        (["--vary", "prior.num-hiden=2,3"], "--vary prior.num-hiden: unknown setting; did you mean 'num_hidden'"),
        (["--vary", "prior.num-hidden=2,many"], "--vary prior.num-hidden: must be a whole number, not 'many'"),
        (["--vary", "epochs=1", "--jobs", "0"], "--jobs must be at least 1, not 0"),
    ],
)
def test_what_cannot_vary_is_refused(cli: Cli, words: list[str], message: str) -> None:
    refused(cli("compare", *SMALL, *words), message)
    assert not list(Path().rglob("checkpoints"))


def test_a_job_that_is_killed_says_so() -> None:
    with pytest.raises(UniboundError, match=r"the process of one was ended \(signal 9, as for want of memory\)"):
        list(each(die, [Path("one"), Path("two")], 1))


def test_a_job_that_refuses_says_so_in_one_line() -> None:
    with pytest.raises(UsageError, match="one: too many cooks"):
        list(each(refuse, [Path("one")], 2))
