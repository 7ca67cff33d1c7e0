"""AIS: its expectation by enumeration of every path, its schedules, and what it refuses."""

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from annealed import Scripted, Worked, expected_log_mean, missed, random_rbm
from unibound_plugins.partition.ais import AIS
from unibound_plugins.partition.bdmc import BDMC
from unibound_plugins.partition.raise_ import Raise
from unibound_plugins.priors.rbm import RBM

from unibound import LogZ, UsageError, registries
from unibound.partition import annealing, enumeration, schedules
from unibound.testing.listing import all_bits, scatter
from unibound.testing.priors import Rates
from unibound.testing.verdict import FALSE_ALARM


def test_the_expected_weight_is_the_ratio_of_partition_functions():
    worked = Worked()
    assert worked.probability.sum().item() == pytest.approx(1, abs=1e-12)
    mean = (worked.probability * worked.log_w.exp()).sum().log().item()
    assert mean == pytest.approx(worked.log_ratio, abs=1e-12)


def test_chains_and_their_reverse_are_weighed_as_their_paths_are():
    prior = scatter(Scripted((2,)), 3)
    path = torch.randint(2, (4, 50, 2), generator=torch.Generator().manual_seed(0)).double()
    betas = torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64)
    log_w = annealing.path_log_weight(prior, path, betas)
    prior.play(path[1:])
    assert torch.allclose(prior.anneal(path[0], betas)[1], log_w)
    prior.play(path[:-1].flip(0))
    assert torch.allclose(prior.anneal(path[-1], betas.flip(0))[1], -log_w)


def test_the_estimate_errs_low_and_less_so_with_more_chains():
    worked = Worked()
    means = [expected_log_mean(worked.probability, worked.log_w, chains) for chains in (1, 2, 3)]
    assert means[0] < means[1] < means[2] < worked.log_ratio


@pytest.mark.parametrize("schedule", schedules.NAMES)
def test_log_z_within_its_error_whatever_the_schedule(schedule: str):
    rbm = random_rbm(0)
    log_z = AIS(num_chains=300, num_temperatures=150, schedule=schedule).fit(rbm).log_z
    assert log_z is not None
    assert log_z.side == "lower"
    assert abs(log_z.value - enumeration.log_sum(rbm)) < FALSE_ALARM * log_z.stderr
    assert log_z.trustworthy


def trained_rbm(num_pixels: int, num_hidden: int) -> RBM:
    """An RBM on those pixels of the digits that vary most, a few passes into its training, and its base fitted."""
    images = (registries()["data_set"]["digits"]().load().train.flatten(1) > 0.5).float()
    x = images[:, images.var(0).argsort(descending=True)[:num_pixels]]
    rbm = RBM((num_pixels,), num_hidden=num_hidden, num_chains=100, steps=1)
    optimizer = torch.optim.SGD(rbm.parameters(), lr=0.2)
    for batch in x[torch.randint(len(x), (1000, 100))]:
        rbm.advance()
        optimizer.zero_grad()
        (-rbm.log_prob(batch)).mean().backward()
        optimizer.step()
    rbm.fit_base(x)
    return rbm.eval()


@pytest.mark.slow
@pytest.mark.parametrize(("num_pixels", "num_hidden"), [(8, 30), (14, 100), (20, 400)])
def test_log_z_of_trained_machines_within_its_error(num_pixels: int, num_hidden: int):
    rbm = trained_rbm(num_pixels, num_hidden)
    log_z = AIS(num_chains=30, num_temperatures=100_000).fit(rbm).log_z
    assert log_z is not None
    assert log_z.trustworthy
    assert 0 < log_z.stderr < 0.02
    assert abs(log_z.value - enumeration.log_sum(rbm)) < FALSE_ALARM * log_z.stderr


@pytest.mark.parametrize("betas", [(0.5, 1.0), (0.0, 0.7, 0.7, 1.0), (0.0, 0.5)])
@pytest.mark.parametrize("estimator", [AIS, BDMC, Raise])
def test_temperatures_that_do_not_rise_from_0_to_1_make_no_estimator(estimator: type, betas: tuple[float, ...]):
    with pytest.raises(
        UsageError, match=f"{estimator.__name__.lower()}: betas: temperatures must rise.*leave them out"
    ):
        estimator(betas=betas)


def test_the_piecewise_schedule_is_that_of_the_paper():
    path = schedules.make("piecewise")
    betas = path.at(torch.arange(path.num_temperatures + 1))
    steps = [torch.arange(n).double() for n in (500, 4000, 10001)]
    assert path.num_temperatures == 14_500
    assert torch.allclose(betas, torch.cat([steps[0] / 1e3, 0.5 + steps[1] / 1e4, 0.9 + steps[2] / 1e5]), atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "piecewise", "sigmoid"])
@pytest.mark.parametrize("total", [1, 2, 7, 100, 2345])
def test_schedules_rise_from_0_to_1_in_blocks_that_join(name: str, total: int):
    path = schedules.make(name, total)
    whole = path.at(torch.arange(total + 1))
    assert whole[0] == 0
    assert whole[-1] == 1
    assert (whole.diff() > 0).all()
    for falling, expected in ((False, whole), (True, whole.flip(0))):
        blocks = list(path.blocks(falling=falling))
        assert max(map(len, blocks)) <= schedules.BLOCK + 1
        assert all(before[-1] == after[0] for before, after in pairwise(blocks))
        assert torch.equal(torch.cat([blocks[0][:1], *(block[1:] for block in blocks)]), expected)


def test_the_adaptive_schedule_spreads_the_loss_of_sample_size():
    rbm = random_rbm(1, 8, 6, scale=2.0).double()
    states, losses = all_bits((8,)), {}
    for name in ("linear", "adaptive"):
        path = schedules.make(name, 50, rbm)
        log_f = torch.stack([-rbm.free_energy(states, beta) for beta in path.at(torch.arange(51)).tolist()]).detach()
        cold, warm = log_f[:-1], log_f[1:]
        # 1 - E[w]^2 / E[w^2] of one step, exactly
        losses[name] = -(2 * warm.logsumexp(1) - cold.logsumexp(1) - (2 * warm - cold).logsumexp(1)).expm1()
    assert losses["adaptive"].max() < 0.6 * losses["linear"].max()
    assert losses["adaptive"].max() < 2 * losses["adaptive"].mean()


def test_chains_are_added_until_the_error_is_small_enough():
    rbm = random_rbm(2)
    log_z = AIS(num_chains=20, num_temperatures=20, target_stderr=0.02).fit(rbm).log_z
    assert log_z is not None
    assert log_z.stderr <= 0.02
    assert log_z.num_chains is not None
    assert log_z.num_chains > 20


def test_a_run_that_was_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rbm, run, fresh = random_rbm(2), annealing.forward, {"num_chains": 20, "num_temperatures": 10}
    settings = fresh | {"target_stderr": 0.02, "state": str(tmp_path / "chains")}
    torch.manual_seed(5)
    whole = AIS(**fresh, target_stderr=0.02).fit(rbm).log_z
    calls = []

    def interrupted(*words: object, **named: object):
        calls.append(words)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(*words)

    monkeypatch.setattr(annealing, "forward", interrupted)
    torch.manual_seed(5)
    with pytest.raises(KeyboardInterrupt):
        AIS(**settings).fit(rbm)
    torch.manual_seed(5)
    assert AIS(**settings).fit(rbm).log_z == whole
    count = len(calls)
    AIS(**settings).fit(rbm)
    assert len(calls) == count  # nothing is left to do
    with pytest.raises(UsageError, match="another model or schedule"):
        AIS(**settings | {"num_temperatures": 11}).fit(rbm)
    (tmp_path / "chains").write_text("nonsense")
    with pytest.raises(UsageError, match="no state"):
        AIS(**settings).fit(rbm)


@pytest.mark.slow
def test_chains_are_shared_among_processes():
    rbm = random_rbm(0)
    log_z = AIS(num_chains=301, num_temperatures=150, num_processes=2).fit(rbm).log_z
    assert log_z is not None
    assert log_z.num_chains == 301
    assert abs(log_z.value - enumeration.log_sum(rbm)) < FALSE_ALARM * log_z.stderr


SCRIPT = """
from unibound_plugins.partition.ais import AIS
from unibound_plugins.priors.rbm import RBM
{}
print("begun")
print(AIS(num_chains=4, num_temperatures=5, num_processes=2).fit({}((4,), num_hidden=2)).log_z.num_chains)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "name", "words"),
    [("", "RBM", None), ("class Own(RBM): pass", "Own", "begin under `if __name__ == '__main__':`")],
    ids=["a prior of ours", "a prior of the script's"],
)
def test_processes_do_not_run_a_plain_script_again(more: str, name: str, words: str | None, tmp_path: Path):
    (tmp_path / "script.py").write_text(SCRIPT.format(more, name))
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True)
    if words is None:
        assert (done.returncode, done.stdout) == (0, "begun\n4\n"), done.stderr
    else:
        assert words in done.stderr


def test_collapsed_weights_are_not_trusted():
    rbm = random_rbm(3, 30, 30, scale=2.0)
    log_z = AIS(num_chains=200, num_temperatures=2).fit(rbm).log_z
    assert log_z is not None
    assert not log_z.trustworthy
    assert log_z.trouble is not None
    assert "of 200 chains carry it" in log_z.trouble


def test_fewer_than_5_percent_of_the_chains():
    assert LogZ(1.0, 0.1, "lower", ess=5.0, num_chains=100).trustworthy
    assert not LogZ(1.0, 0.1, "lower", ess=4.9, num_chains=100).trustworthy
    assert not LogZ(1.0, 0.1, "lower", ess=math.nan, num_chains=100).trustworthy


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_chains": 0}, "num_chains"),
        ({"num_temperatures": 0}, "num_temperatures"),
        ({"schedule": "cubic"}, "schedule"),
        ({"betas": (0.0, 0.5)}, "from 0 to 1"),
        ({"betas": (0.0, 0.5, 0.5, 1.0)}, "from 0 to 1"),
        ({"betas": (0.1, 1.0)}, "from 0 to 1"),
        ({"betas": (0.0, math.nan, 1.0)}, "betas must be a tuple, each element a number"),
    ],
)
def test_bad_settings(settings: dict, words: str):
    with pytest.raises(UsageError, match=words):
        AIS(**settings).fit(random_rbm(0))


def test_a_prior_without_energy():
    with pytest.raises(UsageError, match="EnergyPrior"):
        AIS().fit(Rates((3,)))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e38])
def test_weights_that_overflowed(value: float):
    rbm = random_rbm(0)
    rbm.weight.data[0] = value
    with pytest.raises(UsageError, match="not finite"):
        AIS(num_chains=10, num_temperatures=10).fit(rbm)


@pytest.mark.parametrize("count", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_the_interval_holds_log_z(count: int):
    # At most this many misses of `count` intervals of 95%, but once in a thousand times; 93% for 200.
    assert missed(AIS(), count) <= {12: 4, 200: 14}[count]
