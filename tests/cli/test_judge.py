"""What is said of a trained run afterwards: evaluate, certify, diagnose."""

import json

import pytest


@pytest.fixture
def run(cli, tiny) -> str:
    assert cli(*tiny("run")).code == 0
    return "run"


QUICK = ("--num-chains", 60, "--num-temperatures", 60)


def test_several_estimates_in_one_document(cli, run):
    result = cli("evaluate", run, "--partition", "ais,raise,bdmc,exact", "--num-particles", 60, *QUICK, "--json")
    found = json.loads(result.out)
    assert result.code == 0
    assert [each["partition"] for each in found["estimates"]] == ["ais", "raise", "bdmc", "exact"]
    assert [each["of"] for each in found["estimates"]] == ["log p", "log p_ann", "log p", "log p"]
    first = found["estimates"][0]
    assert (found["partition"], found["nll"], found["log_z"]) == ("ais", first["nll"], first["log_z"]["value"])
    ais, bdmc, exact = (found["estimates"][index]["log_z"] for index in (0, 2, 3))
    assert ais["side"] == "lower"
    assert (bdmc["side"], bdmc["lower"]["side"], bdmc["upper"]["side"]) == ("upper", "lower", "upper")
    assert bdmc["low"] <= exact["value"] <= bdmc["high"]
    for name in (
        "nll",
        "nll_stderr",
        "bits_per_dim",
        "log_z",
        "log_z_stderr",
        "log_z_side",
        "ess",
        "seconds",
        "run_dir",
    ):
        assert name in found


def test_a_table_and_words(cli, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    result = cli("evaluate", run, "--partition", "ais,raise", "--num-particles", 60, "--max-memory", "1MB", *QUICK)
    assert result.code == 0
    for words in ("log Z, ais", "± chains", "-log p_ann", "95% confidence", "annealing model"):
        assert words in result.out


def test_an_untrustworthy_estimate_is_marked_everywhere(cli, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    from unibound.partition import LogZ

    monkeypatch.setattr(LogZ, "trouble", property(lambda self: "2.0 of 60 chains carry it; use more temperatures"))
    words = ("evaluate", run, "--num-particles", 20, *QUICK)
    table, document = cli(*words), cli(*words, "--json")
    assert "untrustworthy" in table.out
    assert "no claim" in table.out
    assert "untrustworthy: 2.0 of 60 chains" in table.err
    assert json.loads(document.out)["log_z_trustworthy"] is False
    assert json.loads(document.out)["estimates"][0]["trustworthy"] is False


def test_a_run_is_certified(cli, run):
    result = cli("certify", run, "--num-particles", 200, "--num-chains", 40, "--temperatures", 60, "--json")
    found = json.loads(result.out)
    assert found["verdict"] in ("certified", "refused")
    assert result.code == (found["verdict"] == "refused")
    assert found["log_z_low"] <= found["log_z"] <= found["log_z_high"]


def test_a_plain_rbm_is_certified_as_one(cli, tiny):
    assert cli(*tiny("plain", model="identity", without=("model",))).code == 0
    found = json.loads(cli("certify", "plain", "--num-chains", 40, "--temperatures", 60, "--json").out)
    assert {row["name"] for row in found["evidence"]} >= {"forward AIS", "reverse AIS"}


def test_a_diagnosis(cli, run):
    result = cli("diagnose", run, "--num-particles", 60, "--json")
    found = json.loads(result.out)
    assert len(found["ess"]) == len(found["tail"]) == found["num_data"]
    assert {"q", "generator", "prior"} == set(found["gradients"])
    assert 0 <= found["active_units"] <= found["units"]
    assert "Pareto tail index" in cli("diagnose", run, "--num-particles", 60).out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "run", "--partition", "ais,nonsense"), "nonsense"),
        (("evaluate", "run", "--partition", ","), "names none"),
        (("evaluate", "run", "--partition", "exact", "--num-chains", 5), "no setting num_chains"),
        (("evaluate", "run", "--num-chains", 0), "num_chains"),
        (("evaluate", "run", "--max-memory", "lots"), "no amount of memory"),
        (("evaluate", "run", "--max-memory", "10"), "does not hold one particle"),
        (("certify",), "--rbm"),
        (("certify", "run", "--rbm", "file"), "--rbm"),
        (("certify", "run", "--num-particles", 0), "needs particles"),
        (("diagnose", "run", "--num-particles", 1), "2 particles"),
        (("diagnose", "run", "--split", "half"), "--split"),
    ],
)
def test_bad_input(cli, run, words, message):
    result = cli(*words)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err
