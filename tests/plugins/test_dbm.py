"""Deep Boltzmann machines, as models and as priors of others: exact where they can be listed."""

import itertools
from pathlib import Path

import pytest
import torch
from running import called, refused
from unibound_plugins.models.identity import Identity
from unibound_plugins.models.mlp import MLP
from unibound_plugins.models.sbn import SBN
from unibound_plugins.partition.ais import AIS
from unibound_plugins.partition.bdmc import BDMC
from unibound_plugins.partition.exact import Exact
from unibound_plugins.priors.dbm import DBM

from unibound import JointBound, Model, Run, Side, UsageError, registries
from unibound.distributions import Bits
from unibound.evaluation.certify import certify_joint
from unibound.evaluation.evaluate import evaluate, normalize
from unibound.partition import enumeration
from unibound.runs import pictures
from unibound.runs.watch import watch
from unibound.settings import sources
from unibound.testing import World
from unibound.testing.listing import all_bits, scatter

BITS = registries()["likelihood"]["bernoulli"]()
MODELS = {
    "identity": (Identity(), (2, 2)),
    "mlp": (MLP(num_latents=3, hidden=(4,), dropout=0.0), (5,)),
    "sbn": (SBN(sizes=(2, 3)), (2, 2)),
}


def joint_of(model: Model, shape: tuple[int, ...], **settings: object) -> JointBound:
    torch.manual_seed(0)
    prior = DBM(model.prior_shape(shape), **{"hidden": (3, 2), "num_chains": 20, **settings})
    return scatter(model.build(prior, BITS, BITS, torch.full(shape, 0.4)), 3, 0.8)


def world_of(name: str, **settings: object) -> World:
    joint = joint_of(*MODELS[name], **settings)
    shape = MODELS[name][1]
    size = joint.q(torch.zeros(1, *shape).double()).event_shape.numel()
    taus = all_bits((size,))
    return World.of(joint, 4, 0.8, all_bits(shape), taus, torch.zeros(len(taus)), None)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_works_with_layers_of_the_priors_own(name: str) -> None:
    world = world_of(name)
    torch.testing.assert_close(world.log_prob().logsumexp(0), torch.zeros(()).double())
    log_q = world.joint.q(world.xs).log_prob(world.every_tau())
    torch.testing.assert_close(log_q.logsumexp(0), torch.zeros(len(world.xs)).double())
    log_w = world.log_joint(world.every_tau()) - log_q
    elbo = torch.where(log_q > -1e9, log_q.exp() * log_w.nan_to_num(), torch.zeros(()).double()).sum(0)
    assert bool((elbo <= world.log_prob() + 1e-9).all())
    x, tau = world.joint.p.dream(7)
    assert x.shape == (7, *MODELS[name][1])
    assert tau.shape == (7, len(world.taus[0]))


@pytest.mark.parametrize("hidden", [(2, 3), (3, 2, 2), (2, 1, 2, 1)])
@pytest.mark.parametrize("centered", [False, True])
def test_odd_layers_are_summed_out(hidden: tuple[int, ...], centered: bool) -> None:
    dbm = scatter(DBM((2,), hidden=hidden, centered=centered), 1)
    layers = all_bits((2 + sum(hidden),)).split([2, *hidden], 1)
    log_f, state = dbm.log_f(layers), torch.cat(layers[::2], 1)
    for row in state.unique(dim=0):
        summed = log_f[(state == row).all(1)].logsumexp(0)
        torch.testing.assert_close(-dbm.free_energy(row), summed)


def test_a_centered_machine_is_another_writing_of_a_plain_one() -> None:
    centered = scatter(DBM((3,), hidden=(2, 2), centered=True), 1)
    plain = DBM((3,), hidden=(2, 2)).double()
    with torch.no_grad():
        for own, other in zip(
            (*plain.weights, *plain.biases), (*centered.weights, *centered.layer_biases()), strict=True
        ):
            own.copy_(other)
    states = all_bits((5,))
    torch.testing.assert_close(plain.free_energy(states), centered.free_energy(states))


def test_centers_are_the_rates_of_the_data() -> None:
    joint = joint_of(Identity(), (3,), centered=True)
    x = all_bits((3,))[[1, 3, 7, 7]]
    joint.p.bind(joint.q, x)
    torch.testing.assert_close(joint.p.prior.offsets[:3], x.mean(0))
    assert bool((joint.p.prior.offsets[3:] == 0.5).all())


@pytest.mark.parametrize("hidden", [(3, 2), (3, 2, 2), (2, 2, 2, 2)])
def test_mean_field_climbs_for_each_datum_on_its_own(hidden: tuple[int, ...]) -> None:
    dbm = scatter(DBM((4,), hidden=hidden), 2, 1.5)
    v = all_bits((4,))

    def bound(sweeps: int) -> torch.Tensor:
        logits = dbm.mean_field(v, sweeps)
        return dbm.log_f([v, *(one.sigmoid() for one in logits)]) + sum(Bits(one).entropy() for one in logits)

    for before, after in itertools.pairwise(map(bound, range(1, 8))):
        assert bool((after >= before - 1e-12).all())
    assert bool((bound(3) - bound(1)).max() > 1e-4)  # or nothing was climbed
    alone = torch.cat([dbm.inner(row.unsqueeze(0)).mean for row in v])
    torch.testing.assert_close(alone, dbm.inner(v).mean)


@pytest.mark.slow
def test_evaluation_finds_the_exact_value_and_its_side() -> None:
    joint = joint_of(Identity(), (6,), hidden=(4, 3))
    prior = joint.p.prior
    torch.manual_seed(1)
    x = prior.visible(enumeration.draw(prior, 300))
    log_z, states = enumeration.log_sum(prior), all_bits((9,))
    listed = -prior.free_energy(states) - log_z
    exact = -torch.stack([listed[(states[:, :6] == row).all(1)].logsumexp(0) for row in x]).mean().item()
    found = evaluate(joint, x, num_particles=200, normalized=normalize(joint, Exact(), x))
    assert found.side is Side.UPPER
    assert exact in found.interval
    for partition, side in ((AIS(num_chains=200, num_temperatures=200), Side.NONE), (BDMC(), Side.UPPER)):
        torch.manual_seed(2)
        other = evaluate(joint, x, num_particles=200, normalized=normalize(joint, partition, x))
        assert other.side is side
        assert other.log_z is not None
        assert all(abs(one.value - log_z) <= 4.75 * one.stderr + 1e-9 for one in other.log_z.estimates)
    certified = certify_joint(joint, x, x, num_particles=300, num_chains=50, temperatures=200, raise_cases=20)
    assert certified.verdict == "certified", certified.reasons
    assert log_z in certified.log_z_interval
    assert -exact in certified.test_ll_interval


SLOW = pytest.mark.slow
OTHERS = [pytest.param(name, marks=SLOW) for name in ("nvil", "rws", "wake_sleep", "contrastive_rws")]


@pytest.mark.parametrize("estimator", ["vimco", "cd", *OTHERS])
@pytest.mark.parametrize("model", ["identity", "sbn"])
def test_a_run(tmp_path: Path, patterns: Path, model: str, estimator: str) -> None:
    values = {
        "data": str(patterns),
        "model": {"name": model, **({"sizes": [4, 3]} if model == "sbn" else {})},
        "prior": {"name": "dbm", "hidden": [3, 2], "num_chains": 10, "centered": True},
        "partition": "exact",
        "num_particles": 20,
        "estimator": estimator,
        "epochs": 3,
    }
    run = Run.create(tmp_path / "run", sources.resolve([sources.Layer(values)]))
    before = run.evaluate("train", num_particles=50).nll
    list(run.train())
    if estimator != "cd" or model == "identity":
        assert run.evaluate("train", num_particles=50).nll < before
    assert run.finish().log_z_side == "equal"
    again = Run.open(run.path)
    assert again.evaluate("test").nll == pytest.approx(run.evaluate("test").nll, abs=1e-6)
    assert pictures.chain(again.joint) is not None
    assert watch(again.joint, run.splits.valid, run.evaluate("valid"), seed=0).chain_free_energy is not None


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--prior.hidden", "5"], ("dbm", "two layers or more", "use rbm")),
        (["--prior.hidden", "5,0"], ("dbm", "[5, 0]")),
        (["--prior.sweeps", "0"], ("dbm", "sweeps", "0")),
        (["--prior.num-chains", "0"], ("dbm", "num_chains", "0")),
        (["--estimator", "sgvb"], ("sgvb", "reparameterized")),
        (["--estimator", "iwae"], ("iwae", "reparameterized")),
        (["--estimator", "autoencoder"], ("autoencoder",)),
        (["--estimator", "greedy"], ("greedy",)),
        (["--posterior", "gaussian"], ("posterior gaussian", "bits")),
        (["--model", "ladder"], ("prior", "reals")),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(
    flags: list[str], parts: tuple[str, ...], patterns: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--data", patterns, "--prior", "dbm", "--run-dir", tmp_path / "run", "--epochs", "1", *flags]
    refused(called(capsys, *words), *parts)
    assert not (tmp_path / "run").exists()


def test_a_prior_of_another_size_is_refused_from_python() -> None:
    with pytest.raises(UsageError, match=r"latents of shape \[3\], but its prior events of shape \[4\]"):
        MODELS["mlp"][0].build(DBM((4,), hidden=(2, 2)), BITS, BITS, torch.zeros(5))
