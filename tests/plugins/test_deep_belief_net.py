"""A deep belief net is a sigmoid belief net under an RBM: it goes wherever a model goes, and its numbers are right."""

import contextlib
import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from unibound_plugins.models.sbn import SBN
from unibound_plugins.partition.ais import AIS
from unibound_plugins.partition.bdmc import BDMC
from unibound_plugins.partition.exact import Exact
from unibound_plugins.partition.raise_ import Raise
from unibound_plugins.priors.rbm import RBM

from unibound import JointBound, Run, registries
from unibound.cli import main
from unibound.data.binarization import sample_bits
from unibound.evaluation.certify import certify_joint
from unibound.evaluation.diagnose import diagnose
from unibound.evaluation.evaluate import draw_codes, evaluate, normalize
from unibound.partition import enumeration
from unibound.runs import pictures
from unibound.runs.train import Training
from unibound.runs.watch import watch
from unibound.settings import sources
from unibound.settings.records import Settings
from unibound.testing.listing import all_bits, scatter

BITS = registries()["likelihood"]["bernoulli"]()
SIZES, PIXELS = (3, 4), 5
ESTIMATORS = ["vimco", "rws", "contrastive_rws", "nvil", "cd", "wake_sleep"]


def net(seed: int = 0, scale: float = 0.7) -> JointBound:
    """Five pixels under two layers of three and four bits, the upper the visible units of an RBM."""
    torch.manual_seed(seed)
    prior = RBM((SIZES[-1],), num_hidden=3, num_chains=20)
    return scatter(SBN(sizes=SIZES).build(prior, BITS, BITS, torch.full((PIXELS,), 0.5)), seed, scale)


def dreams(joint: JointBound, count: int) -> tuple[Tensor, Tensor]:
    """Exact draws of p: data and their latents."""
    torch.manual_seed(1)
    tau = joint.p.complete(enumeration.draw(joint.p.prior, count))
    return joint.p.conditional(tau).sample(), tau


def exact_nll(joint: JointBound, x: Tensor) -> float:
    """By listing every latent, as the identity behind the library has it."""
    even = torch.zeros(len(x)).double().log_softmax(0)
    return joint.divergence(x, even, all_bits((sum(SIZES),))).nll


@pytest.fixture
def data(tmp_path: Path) -> Path:
    x = sample_bits(torch.tensor([0.9, 0.2, 0.7, 0.4]).expand(70, 4), torch.Generator().manual_seed(0)).numpy()
    path = tmp_path / "data.npz"
    parts = dict(zip(("train", "valid", "test"), np.split(x.astype(np.uint8), [40, 55]), strict=True))
    np.savez(path, **parts)
    return path


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def settings(data: Path, estimator: str) -> Settings:
    values = {
        "data": str(data),
        "model": {"name": "sbn", "sizes": [4, 3]},
        "prior": {"name": "rbm", "num_hidden": 2, "num_chains": 10},
        "partition": {"name": "ais", "num_chains": 20, "num_temperatures": 20},
        "estimator": estimator,
        "epochs": 2,
        "batch_size": 10,
        "num_particles": 20,
    }
    return sources.resolve([sources.Layer(values)])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_run_from_python(tmp_path: Path, data: Path, estimator: str) -> None:
    run = Run.create(tmp_path / "run", settings(data, estimator))
    before = copy.deepcopy(run.joint.parts())
    assert len(list(run.train())) == 2
    untrained = registries()["estimator"][estimator]().untrained
    for group in ("q", "generator", "prior"):
        assert same(run.joint.parts()[group], before[group]) == (group in untrained)
    result = run.finish()
    assert 0 < result.nll < 10
    assert (result.partition, result.log_z_side) == ("ais", "lower")
    for name in ("samples.png", "reconstructions.png", "chain.png"):
        assert (run.path / name).stat().st_size > 0
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert {"valid_nll", "log_z", "code_free_energy", "chain_moved", "reconstruction"} <= lines[-1].keys()
    again = Run.open(run.path)
    assert again.evaluate("test").nll == pytest.approx(result.nll, abs=1e-6)


def test_a_run_by_the_command_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["unibound"])

    def call(*words: str) -> str:
        capsys.readouterr()
        with contextlib.suppress(SystemExit):
            main(list(words))
        shown = capsys.readouterr()
        assert shown.out, shown.err
        return shown.out

    small = ["--prior.num-hidden", "2", "--prior.num-chains", "10", "--epochs", "2", "--num-particles", "20"]
    annealed = ["--partition.num-chains", "10", "--partition.num-temperatures", "20"]
    call("run", "--data", str(data), "--model", "sbn", "--model.sizes", "4,3", "--run-dir", "run", *small, *annealed)
    document = json.loads(Path("run/evaluation.json").read_text())
    assert 0 < document["nll"] < 10
    for words in (["evaluate", "run", "--partition", "exact"], ["certify", "run"], ["diagnose", "run"]):
        assert call(*words)


def test_training_lowers_the_exact_nll() -> None:
    joint = net()
    x, _ = dreams(net(5, 1.5), 200)
    stages = sources.resolve([sources.Layer({"estimator": "vimco", "epochs": 10})]).stages
    before = exact_nll(joint, x)
    list(Training(joint, stages, x, batch_size=20).epochs())
    assert exact_nll(joint, x) < before - 0.05


def test_evaluation_finds_the_exact_value_however_it_is_normalized() -> None:
    joint = net()
    x, _ = dreams(joint, 300)
    exact, log_z = exact_nll(joint, x), enumeration.log_sum(joint.p.prior)
    for partition in (Exact(), AIS(num_chains=300, num_temperatures=100), BDMC(num_chains=300, num_temperatures=100)):
        torch.manual_seed(3)
        normalized = normalize(joint, partition, x)
        assert normalized is not None
        found = evaluate(joint, x, num_particles=500, normalized=normalized)
        assert found.log_z is not None
        assert found.log_z.trustworthy
        assert all(abs(one.value - log_z) <= 4.75 * one.stderr + 1e-9 for one in found.log_z.estimates)
        assert exact in found.interval, partition
        assert found.nll - exact < 0.2
    torch.manual_seed(4)
    found = evaluate(joint, x, num_particles=500, normalized=normalize(joint, Raise(num_temperatures=300), x))
    assert found.of == "log p_ann"
    assert abs(found.nll - exact) < 4.75 * found.nll_stderr
    assert exact in evaluate(joint, x, num_particles=500).interval  # which finds by itself what normalizes it


def test_the_base_is_fitted_to_the_top_piece_of_codes() -> None:
    joint = net()
    x, _ = dreams(joint, 500)
    codes = draw_codes(joint, x)
    assert codes.shape == (500, SIZES[-1])
    joint.p.prior.fit_base(codes)
    rates = (codes.sum(0) + 1) / 502
    torch.testing.assert_close(joint.p.prior.base_bias.sigmoid(), rates)


def test_a_certificate_holds_the_exact_value() -> None:
    joint = net()
    x, _ = dreams(joint, 400)
    found = certify_joint(joint, x, x, num_particles=500, num_chains=50, temperatures=200, raise_cases=20)
    assert found.verdict == "certified", found.reasons
    assert enumeration.log_sum(joint.p.prior) in found.log_z_interval
    assert -exact_nll(joint, x) in found.test_ll_interval
    assert {"forward AIS", "reverse AIS", "RAISE", "CSL", "particles"} <= {row.name for row in found.evidence}


def test_dreams_are_of_p() -> None:
    """Every datum as often as p says, from the chains after many moves as from exact draws."""
    joint, every = net(), all_bits((PIXELS,))
    nll = torch.tensor([exact_nll(joint, x.unsqueeze(0)) for x in every])
    assert (-nll).exp().sum().item() == pytest.approx(1, abs=1e-9)
    torch.manual_seed(2)
    for x in (dreams(joint, 20_000)[0], torch.cat([joint.p.dream(20)[0] for _ in range(300)])):
        counts = torch.bincount((x @ 2.0 ** torch.arange(PIXELS).double()).long(), minlength=2**PIXELS)
        rates = (-nll).exp()
        order = (every @ 2.0 ** torch.arange(PIXELS).double()).long()
        off = (counts[order] / len(x) - rates) / (rates * (1 - rates) / len(x)).sqrt()
        assert off.abs().max() < 6


def test_pictures_and_what_is_watched() -> None:
    joint = net()
    joint.advance()
    x, _ = dreams(joint, 30)
    assert pictures.samples(joint, 7).shape == (7, PIXELS)
    chain = pictures.chain(joint)
    assert chain is not None
    assert chain.shape == (20, PIXELS)
    pairs = pictures.reconstructions(joint, x)
    assert torch.equal(pairs[0::2], x)
    valid = evaluate(joint, x, num_particles=10)
    seen = watch(joint, x, valid, seed=0)
    prior = joint.p.prior
    assert seen.chain_free_energy == pytest.approx(prior.free_energy(prior.chains).mean().item())
    assert seen.active is not None
    assert 0 <= seen.active <= sum(SIZES)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_diagnosis(estimator: str) -> None:
    joint, chosen = net(), registries()["estimator"][estimator]()
    x, _ = dreams(joint, 20)
    joint.auxiliary = chosen.auxiliary(joint, x)
    if joint.auxiliary is not None:
        joint.auxiliary.double()
    found = diagnose(joint, chosen, x, num_particles=50, repeats=3)
    assert found.units == sum(SIZES)
    assert found.groups.keys() >= {"q", "generator", "prior"} - chosen.untrained
