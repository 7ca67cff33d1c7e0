"""Evaluation in chunks: shared particles, bounded memory, and words that claim no more than is known."""

import math

import attrs
import pytest
import torch

from unibound import LogZ, NormalizedPrior, Sandwich, ScaledPrior, UsageError
from unibound.evaluation.evaluate import Evaluation, evaluate, evaluate_all
from unibound.evaluation.memory import bytes_per_particle, parse_bytes
from unibound.evaluation.reach import Reach
from unibound.evaluation.tally import Tally
from unibound.tails import pareto_tail_index
from unibound.testing.priors import Table
from unibound.testing.verdict import FALSE_ALARM
from unibound.testing.worlds import World
from unibound.weights import effective_sample_size, log_mean_exp


@pytest.fixture
def world() -> World:
    torch.manual_seed(0)
    return World.of_bits(prior=Table((2,)))


def exact(world: World) -> ScaledPrior:
    return ScaledPrior(world.p.prior, LogZ(world.log_z().item()))


def test_the_nll_is_that_of_the_world(world: World):
    result = evaluate(world.joint, world.xs, num_particles=20_000, normalized=exact(world))
    assert result.nll == pytest.approx(-world.log_prob().mean().item(), abs=0.01)
    assert (result.side, result.of, result.nll_chains_stderr) == ("upper", "log p", 0.0)
    assert result.gap == pytest.approx(0, abs=1e-3)
    assert result.interval.two_sided
    assert result.nll in result.interval
    assert result.bounds is not None
    assert result.bounds.mean().item() == pytest.approx(-result.nll)


def test_its_expectation_is_the_bound_however_small_the_chunks(world: World):
    # One datum over and over, so that its standard error is that of the draws alone.
    x, expected = world.xs[3:4].repeat(500, 1), -world.bound(5)[3].item()
    ess = effective_sample_size(world.joint.particles(x, 5).log_weights)
    two_at_a_time, all_at_once = 2 * bytes_per_particle(world.joint, x[:1]), 2**30
    for max_memory in (two_at_a_time, all_at_once):
        options = {"max_memory": max_memory, "posterior": "none"}
        result = evaluate(world.joint, x, num_particles=5, normalized=exact(world), **options)
        assert abs(result.nll - expected) < FALSE_ALARM * result.nll_stderr
        assert abs(result.ess - ess.mean()) < FALSE_ALARM * (2 * ess.var() / len(ess)).sqrt()
        assert result.num_particles == 5


def test_the_gap_is_that_of_doubling_the_particles(world: World):
    x = world.xs.repeat(4000, 1)
    result = evaluate(world.joint, x, num_particles=4, normalized=exact(world))
    expected = (world.bound(4) - world.bound(2)).mean().item()
    log_w = world.joint.particles(x, 4).log_weights
    gaps = log_mean_exp(log_w) - (log_mean_exp(log_w[:2]) + log_mean_exp(log_w[2:])) / 2  # spread as those it averaged
    assert abs(result.gap - expected) < FALSE_ALARM * gaps.std() / len(gaps) ** 0.5


def test_estimates_share_their_particles(world: World):
    shifted = ScaledPrior(world.p.prior, LogZ(world.log_z().item() + 1))
    first, second = evaluate_all(world.joint, world.xs, [exact(world), shifted], num_particles=300)
    assert second.nll == pytest.approx(first.nll + 1, abs=1e-12)
    assert second.ess == pytest.approx(first.ess)


class Costly(NormalizedPrior):
    """A correction that is asked for at few particles, and counts them."""

    side, of, log_z, num_draws = "lower", "log p_ann", None, 2

    def __init__(self, world: World) -> None:
        super().__init__(world.p.prior)
        self.asked, self.log_z_value = 0, world.log_z().item()

    def log_correction(self, tau: torch.Tensor) -> torch.Tensor:
        self.asked += tau.shape[0] * tau.shape[1]
        return torch.full(tau.shape[:2], -self.log_z_value, dtype=torch.float64)


def test_a_costly_correction_is_asked_for_at_few_particles(world: World):
    costly = Costly(world)
    cheap, dear = evaluate_all(world.joint, world.xs, [exact(world), costly], num_particles=500)
    assert costly.asked == 2 * len(world.xs)
    assert dear.nll == pytest.approx(cheap.nll, abs=1e-12)  # a constant correction is the same wherever it is asked
    assert dear.nll_chains_stderr == pytest.approx(0, abs=1e-9)


def test_particles_are_kept_in_proportion_to_their_weights():
    log_w = torch.tensor([0.1, 0.2, 0.4, 0.3], dtype=torch.float64).log().unsqueeze(1).expand(-1, 20_000)
    tau = torch.arange(4.0).view(4, 1, 1).expand(-1, 20_000, 1)
    tally = Tally(Costly(World.of_bits(prior=Table((2,)))), 4)
    tally.begin(torch.zeros(20_000, 1))
    for chunk in (slice(0, 1), slice(1, 3), slice(3, 4)):
        tally.add(tau[chunk], log_w[chunk])
    counts = torch.bincount(tally.kept[0].flatten().long(), minlength=4) / 40_000
    assert torch.allclose(counts, torch.tensor([0.1, 0.2, 0.4, 0.3]), atol=FALSE_ALARM * 0.5 / 200)


REACH = Reach("draws of it", {}, lack=0.05, lack_stderr=0.0, gap=0.1, slack=0.0, slack_stderr=0.0, cases=(9, 9))


def result_of(log_z: LogZ | None, **changes: object) -> Evaluation:
    plain = Evaluation(100.0, 0.5, 0.2, "upper", 50.0, 500, log_z, 1.0, gap=0.1, reach=REACH)
    return attrs.evolve(plain, **changes)


def test_what_may_be_concluded():
    assert "lies in [98.77, 100.98] nats with 95% confidence" in result_of(None).conclusion
    assert "found every mode" in result_of(LogZ(3.0, 0.1, "lower", 400, 500)).conclusion
    lower, upper = LogZ(2.9, 0.1, "lower", 400, 500), LogZ(3.0, 0.1, "upper", 400, 500)
    both = result_of(Sandwich(lower, upper)).conclusion
    assert "lies in" in both
    assert "annealing found every mode" not in both
    assert "that draws of it reach the posteriors of these data as they do those of the model's own" in both
    assert "Gibbs" in result_of(Sandwich(lower, attrs.evolve(upper, heuristic=True))).conclusion
    assert "no lower end: nothing was looked at" in result_of(None, reach="nothing was looked at").conclusion
    assert "chains of the prior" in result_of(None, reach=attrs.evolve(REACH, heuristic=True)).conclusion
    assert "no claim" in result_of(None, nll_stderr=math.nan).conclusion


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"gap": 0.9}, "still rises by 0.90 nats"),
        ({"slack": 0.9}, "lacks up to 0.90 nats"),
        ({"slack": 0.3, "slack_stderr": 0.2}, "lacks up to 0.69 nats"),
        ({"gap": math.inf}, "not finite"),
        ({"slack": math.nan}, "not finite"),
    ],
)
def test_a_look_that_saw_too_little_leaves_the_end_open(change: dict, why: str):
    found = result_of(None, reach=attrs.evolve(REACH, **change))
    assert found.interval.low is None
    assert why in found.conclusion


def test_a_collapsed_log_z_allows_no_claim():
    result = result_of(LogZ(3.0, 0.1, "lower", ess=12.0, num_chains=500))
    assert (result.interval.low, result.interval.high) == (None, None)
    assert result.conclusion.startswith("no claim: log Z is not to be trusted: 12.0 of 500 chains carry it")


@pytest.mark.parametrize(("gap", "trusted"), [(0.9, False), (0.15, True), (-1.5, False)])
def test_sides_that_contradict_each_other(gap: float, trusted: bool):
    lower = LogZ(2.0, 0.01, "lower", 400, 500)
    both = Sandwich(lower, LogZ(2.0 + gap, 0.01, "upper", 400, 500))
    assert both.trustworthy is trusted
    assert both.gap == pytest.approx(gap)


def test_bad_input(world: World):
    with pytest.raises(UsageError, match="particles and data"):
        evaluate(world.joint, world.xs, num_particles=0)
    with pytest.raises(UsageError, match="particles and data"):
        evaluate(world.joint, world.xs[:0], num_particles=5)
    with pytest.raises(UsageError, match="does not hold one particle"):
        evaluate(world.joint, world.xs, num_particles=5, max_memory=10)


@pytest.mark.parametrize(("text", "expected"), [("500", 500), ("2GB", 2 * 10**9), ("1.5 MiB", 3 * 2**19)])
def test_amounts_of_memory(text: str, expected: int):
    assert parse_bytes(text) == expected


def test_what_is_no_amount_of_memory_is_refused():
    with pytest.raises(UsageError, match="no amount of memory"):
        parse_bytes("7k")


@pytest.mark.parametrize("index", [0.2, 0.5, 1.0])
def test_tail_index_of_pareto_weights(index: float):
    log_w = index * torch.distributions.Exponential(1.0).sample((4000, 1000)).double()
    drawn_to_one_half = (190 * index + 10 * 0.5) / 200  # 190 weights are its tail
    assert pareto_tail_index(log_w).mean().item() == pytest.approx(drawn_to_one_half, abs=0.03)


def test_tail_index_of_few_or_equal_weights():
    assert pareto_tail_index(torch.zeros(10, 3)).isnan().all()
    assert torch.equal(pareto_tail_index(torch.full((100, 3), -1e5)), torch.zeros(3).double())
    assert pareto_tail_index(torch.randn(500, 3) * 1e-3).max() < 0.5


def test_weights_that_repeat_have_no_tail_to_fit():
    log_w = torch.full((500, 2), -1.0).double()
    log_w[:5] = 0.0
    log_w[:, 1] += torch.rand(500).double()
    few, many = pareto_tail_index(log_w)
    assert few.isnan()
    assert many < 0.7
