"""`unibound compare`: what it trains, what it measures, what it repeats and what it refuses."""

import json
import math

import attrs
import pytest
import torch
from running import TINY, words_of

from unibound import Estimate, Estimator, JointBound, Run, registries
from unibound.evaluation.diagnose import gradient_noise, resampling_noise
from unibound.runs import compare
from unibound.settings.sources import Layer
from unibound.testing import World, variance
from unibound.testing.bias import bias
from unibound.testing.networks import BitGenerator, BitInference
from unibound.testing.priors import Rates
from unibound.weights import log_mean_exp

SMALL = words_of(
    {k: v for k, v in TINY.items() if "particles" not in k} | {"evaluation-particles": 3, "model.num-latents": 2}
)
WORDS = ["compare", "--estimators", "vimco,nvil", "--num-particles", "2,3", "--seeds", 2, *SMALL]


def test_table_document_and_folders(cli, tmp_path):
    result = cli(*WORDS, "--json", "--out", "here")
    assert result.code == 0, result
    document = json.loads(result.out)
    assert document == json.loads((tmp_path / "here" / "compare.json").read_text())
    assert [(row["estimator"], row["num_particles"], row["seeds"]) for row in document["rows"]] == [
        ("vimco", 2, 2),
        ("vimco", 3, 2),
        ("nvil", 2, 2),
        ("nvil", 3, 2),
    ]
    for row in document["rows"]:
        assert row["nll"] > 0
        assert row["nll_stderr_seeds"] > 0
        assert row["nll_stderr_data"] > 0
        assert row["bound"] < 0 < row["seconds_per_step"]
        assert set(row["gradient"]) == {"q", "generator", "prior"}
        assert all(noise["variance"] > 0 and math.isfinite(noise["snr"]) for noise in row["gradient"].values())
    folders = {path.name for path in (tmp_path / "here").iterdir() if path.is_dir()}
    assert folders == {f"{name}-k{k}-seed{seed}" for name in ("vimco", "nvil") for k in (2, 3) for seed in (0, 1)}
    # Every cell is a run like any other.
    assert cli("evaluate", "here/vimco-k2-seed1", "--json").code == 0
    # Two latent bits and two particles are few enough to be listed.
    biases = document["rows"][0]["bias"]
    assert set(biases) == {"q", "generator", "prior"}
    assert max(biases.values()) < 1e-6


def test_the_same_command_repeats_nothing(cli, tmp_path, monkeypatch):
    words = [*WORDS[:2], "vimco", "--num-particles", "2,3", "--seeds", 1, *SMALL]
    measured: list[str] = []
    measure = compare.measure

    def fail_at_the_second(run: Run):
        measured.append(run.path.name)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return measure(run)

    monkeypatch.setattr(compare, "measure", fail_at_the_second)
    stopped = cli(*words)
    assert stopped.code == 130
    assert "the same command goes on where this stopped" in stopped.err
    assert measured == ["vimco-k2-seed0", "vimco-k3-seed0"]
    assert cli(*words).code == 0
    assert measured == ["vimco-k2-seed0", "vimco-k3-seed0", "vimco-k3-seed0"]
    first = cli(*words)
    assert len(measured) == 3
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("compare-vimco-")
    assert "test NLL" in first.out
    assert "gradient of" in first.out


def test_estimators_without_particles_are_trained_once(cli):
    result = cli("compare", "--estimators", "cd", "--num-particles", "2,3", "--seeds", 1, *SMALL, "--json")
    (row,) = json.loads(result.out)["rows"]
    assert row["num_particles"] is None
    assert row["bound"] is None
    assert row["nll_stderr_seeds"] is None
    assert set(row["gradient"]) == {"prior"}
    assert row["bias"] == {}


def test_settings_of_estimators_go_to_those_that_have_them():
    layer = Layer({"epochs": 2, "estimator": {"wake_q": 0.25}}, lambda name: f"--{name}")
    cells = compare.plan(["rws", "vimco"], [4], 2, [layer])
    assert [cell.name for cell in cells] == ["rws-k4-seed0", "rws-k4-seed1", "vimco-k4-seed0", "vimco-k4-seed1"]
    rws, vimco = (cells[i].settings.stages[0].estimator.settings for i in (0, 2))
    assert rws.wake_q == 0.25
    assert vimco == registries()["estimator"]["vimco"](num_particles=4)
    assert [cell.settings.seed for cell in cells] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--estimators", "vimko"], "unknown estimator 'vimko'; did you mean 'vimco'?"),
        (["--estimators", "vimco,vimco"], "--estimators must be names, each once"),
        (["--estimators", ","], "--estimators must be names, each once"),
        (["--estimators", "vimco", "--num-particles", "1"], "vimco with 1 particles: must be at least 2"),
        (["--estimators", "vimco", "--num-particles", "2,x"], "--num-particles must be whole numbers"),
        (["--estimators", "vimco", "--seeds", "0"], "--seeds must be at least 1, not 0"),
        (["--estimators", "vimco", "--estimator", "rws"], "name those to compare with --estimators"),
        (
            ["--estimators", "vimco", "--estimator.hidden", "3"],
            "--estimator.hidden: no setting of vimco; there are: backward, baseline, num_particles",
        ),
        (["--estimators", "vimco,sgvb"], "sgvb needs reparameterized samples, but q(tau | x) is Bits"),
    ],
)
def test_refuses_before_anything_is_trained(cli, tmp_path, words, message):
    seeds = [] if "--seeds" in words else ["--seeds", 1]
    result = cli("compare", *words, *seeds, *SMALL)
    assert result.code == 2, result
    assert message in result.err
    assert not list(tmp_path.rglob("checkpoints"))


def test_another_comparison_in_the_same_folder_is_refused(cli):
    words = ["compare", "--estimators", "vimco", "--num-particles", 2, "--seeds", 1, "--out", "here", *SMALL]
    assert cli(*words).code == 0
    result = cli(*words, "--batch-size", 20)
    assert result.code == 2
    assert "holds a run with other settings; name another --out" in result.err


def test_a_plot(cli, tmp_path):
    words = ["compare", "--estimators", "vimco", "--num-particles", "2,3", "--seeds", 1, "--out", "here", *SMALL]
    assert cli(*words).code == 0
    assert (tmp_path / "here" / "compare.png").stat().st_size > 1000
    assert (tmp_path / "here" / "compare.svg").read_text().lstrip().startswith("<?xml")


@pytest.fixture
def world():
    return World.of_bits(2, Rates((2,)))


def test_noise_is_the_exact_variance_of_a_batch_of_one(world):
    """The empirical variance of one datum's gradient, against the one by listing all draws."""
    vimco = registries()["estimator"]["vimco"](num_particles=2)
    torch.manual_seed(0)
    single = World(world.joint, world.xs[3:4], torch.zeros(1).double(), world.taus, world.log_measure, None)
    found = gradient_noise(world.joint, vimco, world.xs[3:4], 2000)
    for group in ("q", "generator", "prior"):
        exact = variance(single, vimco, group)
        assert abs(found[group].variance / exact - 1) < 0.15, group
    assert all(parameter.grad is None for parameter in world.joint.parameters())


@pytest.mark.parametrize("name", ["vimco", "rws"])
def test_noise_of_resampling_is_the_exact_variance_that_it_adds(world, name):
    every = registries()["estimator"][name](num_particles=2)
    one = attrs.evolve(every, backward="resampled")
    single = World(world.joint, world.xs[3:4], torch.zeros(1).double(), world.taus, world.log_measure, None)
    torch.manual_seed(0)
    found = resampling_noise(world.joint, one, world.xs[3:4], 200 if name == "vimco" else 10)
    assert found["q"] < 1e-20  # all its terms are there, and whatever is dreamed is dreamed for both
    for group in ("generator", "prior") if name == "vimco" else ():
        exact = variance(single, one, group) - variance(single, every, group)
        assert found[group] == pytest.approx(exact, rel=0.4), group
    assert resampling_noise(world.joint, every, world.xs, 3) == {}
    assert world.joint.choose == type(world.joint).choose.__get__(world.joint)


def test_what_resampling_adds_is_printed(cli):
    words = ["compare", "--estimators", "vimco,nvil", "--num-particles", "3", "--seeds", 1, *SMALL]
    result = cli(*words, "--estimator.backward", "resampled", "--model.dropout", 0, "--out", "here")
    assert result.code == 0, result
    lines = [line.split() for line in result.out.splitlines()]
    header = next(line for line in lines if "SNR" in line)
    assert header[header.index("SNR") + 1] == "resampling"
    added = {line[2]: line[-2] for line in lines if line[:2] == ["vimco", "3"] and line[2] in ("q", "generator")}
    assert float(added["generator"].strip("+%")) > 1 > float(added["q"].strip("+%"))
    assert any(line[:2] == ["nvil", "3"] and line[-2] == "-" for line in lines)


def test_noise_sees_signal():
    joint = World.of_bits(2).joint

    class Still(Estimator):
        """Has no noise."""

        def __call__(self, joint: JointBound, x: torch.Tensor) -> Estimate:
            return Estimate(joint.q(x).log_prob(torch.ones(len(x), 2)), None, None, side="none")

    found = gradient_noise(joint, Still(), torch.ones(4, 3).double(), 5)
    assert set(found) == {"q"}
    assert found["q"].variance < 1e-20
    assert found["q"].signal_to_noise > 1e6


def test_bias_is_measured_in_a_model_that_can_be_listed(world):
    x = world.xs[[0, 1, 1, 5]]
    vimco, rws = (registries()["estimator"][name](num_particles=2) for name in ("vimco", "rws"))
    exact = bias(world.joint, vimco, x)
    assert exact is not None
    assert max(exact.values()) < 1e-9
    found = bias(world.joint, rws, x)  # dreams of x, which three pixels allow to be listed
    assert found is not None
    assert found["q"] > 0.1
    assert max(found["generator"], found["prior"]) < 1e-9


def test_bias_of_a_wrong_gradient_is_seen(world):
    class Halved(Estimator):
        """Half of VIMCO without a baseline, for q."""

        def __call__(self, joint: JointBound, x: torch.Tensor) -> Estimate:
            particles = joint.particles(x, 2)
            log_w = particles.log_weights
            bound = log_mean_exp(log_w)
            score = 0.5 * bound.detach() * particles.log_q.sum(0) - 0.5 * particles.log_q.mean(0)
            return Estimate(-(score + bound), bound.detach(), log_w.detach(), side="lower")

    found = bias(world.joint, Halved(), world.xs)
    assert found is not None
    assert found["generator"] < 1e-9
    assert found["q"] > 1e-3


def test_bias_of_what_cannot_be_listed_is_none(world):
    vimco = registries()["estimator"]["vimco"]
    assert bias(world.joint, vimco(num_particles=30), world.xs) is None
    assert bias(World.of_reals(1).joint, vimco(num_particles=2), torch.zeros(3, 2)) is None
    wide = JointBound(BitInference(3, (9,)), type(world.p)(Rates((9,)), BitGenerator(9, 3)))
    assert bias(wide, vimco(num_particles=2), world.xs) is None
