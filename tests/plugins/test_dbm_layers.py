"""Deep Boltzmann machines: begun layer by layer, settled layer by layer, and what may be claimed of their bounds."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from running import called, refused
from unibound_plugins.models.identity import Identity
from unibound_plugins.partition.exact import Exact
from unibound_plugins.priors.dbm import DBM

from unibound import registries
from unibound.distributions import Bits
from unibound.evaluation.evaluate import evaluate, normalize
from unibound.runs.train import Training
from unibound.settings import sources
from unibound.settled import settle
from unibound.testing.listing import all_bits, scatter

BITS = registries()["likelihood"]["bernoulli"]()


def listed_contrast(dbm: DBM, layer: int, v: torch.Tensor) -> torch.Tensor:
    """F of a datum [V] of a layer's own machine, its copies written out and the upper ones listed: nats."""
    low, high = dbm.offsets.split(dbm.sizes)[layer - 1 : layer + 1]
    lows, highs = (1 if layer == len(dbm.sizes) - 1 else 2), (1 if layer == 1 else 2)
    ups = all_bits((highs * dbm.sizes[layer],)).unflatten(1, (highs, -1))  # [S, C', H]
    joined = sum((v - low) @ dbm.weights[layer - 1] @ (ups[:, copy] - high) .mT for copy in range(highs))  # fmt: skip
    own = sum(ups[:, copy] @ dbm.biases[layer] for copy in range(highs))
    return -(lows * joined + own).logsumexp(0) - lows * (v @ dbm.biases[layer - 1])


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_layer_of_its_own_hears_twice_what_it_will_hear_from_both_sides(layer: int, centered: bool) -> None:
    dbm = scatter(DBM((2,), hidden=(3, 2, 2), centered=centered), 5)
    torch.manual_seed(0)
    dbm.register_buffer("offsets", torch.rand_like(dbm.offsets) if centered else torch.zeros_like(dbm.offsets))
    machine, v = dbm._doubled(layer), all_bits((dbm.sizes[layer - 1],))
    free = machine.free_energy(v.expand(machine.lows, -1, -1))
    torch.testing.assert_close(free, torch.stack([listed_contrast(dbm, layer, row) for row in v]))
    assert (machine.lows, machine.highs) == {1: (2, 1), 2: (2, 2), 3: (1, 2)}[layer]
    h = all_bits((dbm.sizes[layer],))[-1:].expand(machine.highs, 40_000, -1)
    field = machine.highs * (h[0, 0] - machine.high_offset) @ dbm.weights[layer - 1].mT + dbm.biases[layer - 1]
    rates = machine.down(h).mean(1)
    torch.testing.assert_close(rates, field.sigmoid().expand_as(rates), atol=0.012, rtol=0)


def test_a_unit_between_two_layers_hears_as_much_as_from_both() -> None:
    """Where the machine above says of it what that below says, its field in either is that in the whole."""
    dbm = scatter(DBM((3,), hidden=(2, 2)), 6)
    v, top = all_bits((3,))[5], all_bits((2,))[3]
    both = v @ dbm.weights[0] + dbm.weights[1] @ top + dbm.biases[1]
    below = 2 * v @ dbm.weights[0] + dbm.biases[1]
    above = 2 * dbm.weights[1] @ top + dbm.biases[1]
    torch.testing.assert_close(both, (below + above) / 2)
    torch.testing.assert_close(dbm._doubled(1)._field(v.expand(2, 1, -1))[0] + dbm.biases[1], below)


def test_a_stage_trains_its_layer_alone_and_is_a_better_start() -> None:
    torch.manual_seed(0)
    joint = Identity().build(DBM((6,), hidden=(3, 2)), BITS, BITS, torch.full((6,), 0.5))
    x = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 1, 0, 1, 1], [0, 0, 1, 0, 1, 0]]).repeat(20, 1).float()
    moved, nlls, dbm = [], [], joint.p.prior
    for stage in ({}, {"layer": 1}, {"layer": 2}):
        before = {name: value.detach().clone() for name, value in dbm.named_parameters()}
        if stage:
            values = {"epochs": 20, "estimator": {"name": "cd", **stage}, "optimizer": {"learning_rate": 0.05}}
            stages = sources.resolve([sources.Layer({"stage": [values]})]).stages
            list(Training(joint, stages, x, batch_size=20).epochs())
        moved.append({name for name, value in dbm.named_parameters() if not torch.equal(value, before[name])})
        nlls.append(
            evaluate(joint, x[:3], num_particles=50, normalized=normalize(joint, Exact(), x), posterior="none").nll
        )
    assert moved == [set(), {"weights.0", "biases.0", "biases.1"}, {"weights.1", "biases.1", "biases.2"}]
    assert nlls[2] < nlls[0] - 1.0  # of 4.2 nats; a fair coin a bit


@pytest.mark.parametrize(
    ("prior", "flags", "parts"),
    [
        ("dbm", ["--estimator.layer", "3"], ("layer 3 of 2 hidden ones",)),
        ("rbm", ["--estimator.layer", "1"], ("RBM has no layers", "leave layer out")),
        ("dbm", ["--estimator.layer", "1", "--estimator.chain", "persistent"], ("begin at data", "layer = 0")),
    ],
)
def test_a_layer_that_is_none_is_refused_in_one_line(
    prior: str,
    flags: list[str],
    parts: tuple[str, ...],
    patterns: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["run", "--data", patterns, "--model", "identity", "--prior", prior, "--estimator", "cd", "--epochs", "1"]
    refused(called(capsys, *words, "--run-dir", tmp_path / "run", *flags), *parts)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("partition", "side", "log_z_side"),
    [("ais", "none", "lower"), ("bdmc", "upper", "upper"), ("exact", "upper", "equal")],
)
def test_a_mean_field_bound_divided_by_an_annealed_log_z_has_no_side(
    partition: str, side: str, log_z_side: str, patterns: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the number is that is printed for MNIST, 84.62 nats: one bound less another, each flattering or not."""
    words = ["run", "--data", patterns, "--model", "identity", "--prior", "dbm", "--prior.hidden", "3,2"]
    words += ["--estimator", "cd", "--epochs", "1", "--num-particles", "1", "--run-dir", tmp_path / "run", "--json"]
    annealed = ["--partition.num-chains", "20", "--partition.num-temperatures", "20"]
    more = ["--partition", partition, *(annealed if partition != "exact" else [])]
    found = json.loads(called(capsys, *words, *more).out)
    assert (found["nll_side"], found["log_z_side"]) == (side, log_z_side)
    if side == "none":
        assert "given that annealing found every mode" in found["conclusion"]


def test_mean_field_of_all_layers_at_once_falls_and_layer_by_layer_does_not() -> None:
    """Two layers that want to be alike, one begun high and one low: moved together they change places for ever."""
    dbm = DBM((1,), hidden=(1, 1)).double()
    with torch.no_grad():
        for parameter, value in zip((*dbm.weights, *dbm.biases), (0.0, 12.0, 0.0, -6.0, -6.0), strict=True):
            parameter.fill_(value)
    v, start = torch.zeros(1, 1).double(), torch.tensor([[2.0, -2.0]]).double()

    def bound(pieces: list[list[int]], sweeps: int) -> float:
        def value(mean: torch.Tensor) -> torch.Tensor:
            return dbm.log_f([v, *mean.split(1, -1)])

        logits = settle(value, start, pieces, sweeps)
        return (value(logits.sigmoid()) + Bits(logits).entropy()).item()

    for pieces, falls in (([[0, 1]], True), ([[0], [1]], False)):
        climbed = [bound(pieces, sweeps) for sweeps in range(6)]
        assert (min(after - before for before, after in itertools.pairwise(climbed)) < -1e-3) == falls
        assert (climbed[-1] < climbed[0] + 1.0) == falls


def test_what_p_allows_by_chance_does_not_end_an_evaluation() -> None:
    """Where q is sure of x, even values of x and h are possible now and then: those that hit the datum."""
    machine = scatter(DBM((6,), hidden=(2, 2), num_chains=8), 7)
    joint = Identity().build(machine, BITS, BITS, torch.full((6,), 0.5)).eval()
    x, log_z = all_bits((6,))[::7], normalize(joint, Exact(), all_bits((6,)))
    for seed in range(6):
        torch.manual_seed(seed)
        found = evaluate(joint, x, num_particles=10, normalized=log_z)
        assert "even values of what q leaves open" in found.conclusion
