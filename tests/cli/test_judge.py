"""What is said of a trained run afterwards: evaluate, certify, diagnose."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from running import refused

from unibound.testing.verdict import FALSE_ALARM


@pytest.fixture
def run(cli, tiny) -> str:
    assert cli(*tiny("run")).code == 0
    return "run"


QUICK = ("--partition.num-chains", 60, "--partition.num-temperatures", 60)


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
    low, high = bdmc["lower"], bdmc["upper"]
    assert low["value"] - FALSE_ALARM * low["stderr"] < exact["value"] < high["value"] + FALSE_ALARM * high["stderr"]
    assert bdmc["low"] < bdmc["high"]
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


def certify(cli, *words):
    """Exit code and document of a certificate that is made quickly."""
    result = cli("certify", "run", "--num-particles", 200, "--num-chains", 40, "--temperatures", 60, "--json", *words)
    return result.code, json.loads(result.out)


PLAIN = {"model": "identity", "without": ("model",)}


@pytest.mark.parametrize("model", [{}, PLAIN], ids=["mlp", "identity"])
def test_a_model_that_has_hardly_begun_is_right_about_fair_coins(cli, tiny, npz, model):
    """Each pixel is on in half of the data, so that nothing is more than a nat likelier under independent pixels."""
    every = np.array(list(itertools.product((0, 1), repeat=6)))
    coins = npz("coins.npz", train=every, valid=every, test=every)
    assert cli(*tiny(data=coins, **model)).code == 0
    code, found = certify(cli)
    assert (code, found["verdict"]) == (0, "certified")
    assert found["log_z_low"] <= found["log_z"] <= found["log_z_high"]
    assert found["test_ll_low"] <= found["test_ll"] <= found["test_ll_high"]
    assert found["test_ll"] == pytest.approx(-6 * math.log(2), abs=0.5)
    assert {row["name"] for row in found["evidence"]} >= {"forward AIS", "reverse AIS", "base rates"}


def test_a_model_that_has_hardly_begun_is_wrong_about_what_never_changes(cli, tiny, npz):
    ink = np.ones((64, 6))
    ink[0, 0] = 0  # but for one pixel of one datum: what never varies at all is not even read
    assert cli(*tiny(data=npz("ink.npz", train=ink, valid=ink, test=ink), **PLAIN)).code == 0
    code, found = certify(cli)
    assert (code, found["verdict"]) == (0, "certified")
    assert any("independent pixels" in one for one in (*found["warnings"], *found["reasons"]))


def test_a_setting_is_one_of_every_estimator_named_that_has_it(cli, run, monkeypatch):
    from unibound_plugins.partition.ais import AIS
    from unibound_plugins.partition.bdmc import BDMC
    from unibound_plugins.partition.exact import Exact

    from unibound.cli.evaluate import partitions
    from unibound.cli.flags import as_layer
    from unibound.settings.convert import Flag

    typed = {"partition__num_chains": Flag("7"), "partition__max_bits": Flag("9"), "partition__schedule": None}
    chosen = partitions("ais,bdmc,exact", Path(run), as_layer(typed))
    # The run's own estimator keeps the settings of the run; the others have their defaults.
    assert chosen == {
        "ais": AIS(num_chains=7, num_temperatures=5), "bdmc": BDMC(num_chains=7), "exact": Exact(max_bits=9)
    }  # fmt: skip
    assert partitions("ais", None, as_layer({})) == {"ais": AIS()}


def test_help_shows_the_settings_of_partition_estimators(cli):
    for command in ("evaluate", "certify"):
        every, exact = cli(command, "--help").out, cli(command, "--partition=exact", "--help").out
        for name in ("ais", "bdmc", "exact", "raise"):
            assert f" Partition {name} " in every
            assert (f" Partition {name} " in exact) == (name == "exact")
        assert "--partition.num-temperatures" not in exact


def test_a_certificate_hears_other_estimators(cli, run):
    words = ("certify", run, "--num-particles", 200, "--num-chains", 40, "--temperatures", 60)
    more = ("--partition", "exact,bdmc", "--partition.num-chains", 30, "--partition.num-temperatures", 40)
    alone, found = (json.loads(cli(*words, *each, "--json").out) for each in ((), more))
    rows = [(row["name"], row["side"]) for row in found["evidence"] if row["name"].startswith("log Z, ")]
    assert rows == [("log Z, exact", "equal"), ("log Z, bdmc", "lower"), ("log Z, bdmc", "upper")]
    for name in ("log_z", "log_z_low", "log_z_high"):
        assert found[name] == alone[name]


SHIFTED = """
import attrs
from unibound import LogZ, PartitionEstimator, ScaledPrior, hookimpl


@attrs.frozen
class Shifted(PartitionEstimator):
    \"\"\"A number of one's own.\"\"\"

    far: float = attrs.field(default=0.0, validator=attrs.validators.ge(0.0))

    def fit(self, prior):
        return ScaledPrior(prior, LogZ(self.far))


@hookimpl
def register_partition_estimators(register):
    register("shifted", Shifted)
"""


def test_a_strangers_estimator_has_its_flags_too(cli, run, distribution):
    distribution("stranger", "shifted_one", SHIFTED)
    assert "--partition.far" in cli("evaluate", "--partition", "shifted", "--help").out
    words = ("--partition", "exact,shifted", "--partition.far", 500)
    estimates = json.loads(cli("evaluate", run, *words, "--num-particles", 20, "--json").out)["estimates"]
    assert estimates[1]["log_z"]["value"] == 500
    refused(cli("evaluate", run, "--partition", "shifted", "--partition.far", -1), "--partition.far: must be >= 0")
    quick = ("--num-particles", 50, "--num-chains", 40, "--temperatures", 60)
    result = cli("certify", run, *words, *quick)
    assert result.code == 1
    assert "log Z, shifted, is above 500.00 with 95% confidence, and annealing below" in result.err


def test_a_diagnosis(cli, run):
    result = cli("diagnose", run, "--num-particles", 60, "--probe-steps", 20, "--json")
    found = json.loads(result.out)
    parts = {part["name"]: part for part in found["composition"]["parts"]}
    assert {"nll", "data", "latents", "posterior", "prior", "generator"} == set(parts)
    assert parts["nll"]["test"] == pytest.approx(
        parts["data"]["test"] + parts["latents"]["test"] - parts["posterior"]["test"]
    )
    assert parts["data"]["side"] == "equal"
    assert json.loads(Path(run, "diagnosis.json").read_text()) == {k: v for k, v in found.items() if k != "run_dir"}
    assert cli("report", run).code == 0
    page = Path(run, "report.html").read_text()
    assert "What it is made of" in page
    assert f"{parts['data']['test']:.2f}" in page
    assert len(found["ess"]) == len(found["tail"]) == found["num_data"]
    assert {"q", "generator", "prior"} == set(found["gradients"])
    assert 0 <= found["active_units"] <= found["units"]
    printed = cli("diagnose", run, "--num-particles", 60, "--probe-steps", 0).out
    assert "Pareto tail index" in printed
    assert "data given latents" in printed
    assert "another prior" not in printed


def test_a_diagnosis_that_is_hurt_or_cannot_be_kept(cli, run):
    kept = Path(run, "diagnosis.json")
    kept.write_text('{"composition": {}}')
    refused(cli("report", run), "diagnosis.json", "make it anew by unibound diagnose")
    kept.unlink()
    assert cli("report", run).code == 0
    assert "What it is made of" not in Path(run, "report.html").read_text()
    kept.mkdir()
    assert cli("diagnose", run, "--num-particles", 4, "--probe-steps", 0).code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "run", "--partition", "ais,nonsense"), "nonsense"),
        (("evaluate", "run", "--partition", ","), "names none"),
        (
            ("evaluate", "run", "--partition", "exact", "--partition.num-chains", 5),
            "--partition.num-chains: no setting of exact; there are: chunk_bits, max_bits",
        ),
        (("evaluate", "run", "--partition", "exact", "--partition.num-bits", 5), "--partition.num-bits"),
        (("evaluate", "run", "--partition", "ais,exact", "--partition.num-draws", 5), "no setting of ais, exact"),
        (("evaluate", "run", "--partition.num-chains", 0), "num_chains must be a whole number, at least 1, not 0"),
        (("evaluate", "run", "--partition", "bdmc", "--partition.num-chains", 1.5), "--partition.num-chains"),
        (("evaluate", "run", "--partition.schedule", "linea"), "did you mean 'linear'?"),
        (("certify", "run", "--partition", ","), "names none"),
        (("certify", "run", "--partition.num-chains", 5), "--partition names none"),
        (("certify", "run", "--partition", "exact", "--partition.num-chains", 5), "no setting of exact"),
        (("certify", "run", "--partition", "raise"), "raise gives no log Z"),
        (("certify", "nothing", "--partition", "exact"), "nothing is not the folder of a run"),
        (("evaluate", "run", "--max-memory", "lots"), "no amount of memory"),
        (("evaluate", "run", "--max-memory", "10"), "does not hold one particle"),
        (("certify",), "--rbm"),
        (("certify", "run", "--rbm", "file"), "--rbm"),
        (("certify", "run", "--num-particles", 0), "--num-particles must be at least 1"),
        (("diagnose", "run", "--num-particles", 1), "2 particles"),
        (("diagnose", "run", "--probe-steps", -1), "--probe-steps must be at least 0"),
        (("diagnose", "run", "--split", "half"), "split must be"),
    ],
)
def test_bad_input(cli, run, words, message):
    result = cli(*words)
    refused(result, message)
