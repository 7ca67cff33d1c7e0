"""RBMs over other units: what they are worth trained, what goes wrong with them, and what they refuse."""

import math
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unibound import UsageError
from unibound.distributions.truncated import Rectified
from unibound.energies.units import CountUnits
from unibound.evaluation.certify import certify
from unibound.partition import annealing, enumeration, schedules
from unibound.settings.defaults import likelihood_over
from unibound.support import integer_interval, require, spin
from unibound.testing import examine_prior
from unibound.testing.listing import all_states, number, scatter
from unibound.testing.verdict import chi_square

SpinRBM = pytest.importorskip("unibound_plugins.priors.spin_rbm").SpinRBM
GaussianRBM = pytest.importorskip("unibound_plugins.priors.gaussian_rbm").GaussianRBM
PottsRBM = pytest.importorskip("unibound_plugins.priors.potts_rbm").PottsRBM
RBM = pytest.importorskip("unibound_plugins.priors.rbm").RBM
Alignment = pytest.importorskip("unibound_plugins.data_sets.alignment").Alignment
Identity = pytest.importorskip("unibound_plugins.models.identity").Identity
Gaussian = pytest.importorskip("unibound_plugins.likelihoods.gaussian").Gaussian
CD = pytest.importorskip("unibound_plugins.estimators.cd").CD


class SpinsReadAsBits(SpinRBM):
    """Moves as if its weights were those of bits."""

    def as_bits(self):
        return self.weight, self.visible_bias, self.hidden_bias, self.weight.sum() * 0


class ForgetsTheConstant(SpinRBM):
    def as_bits(self):
        *machine, offset = super().as_bits()
        return *machine, 0 * offset


class ScaleForVariance(GaussianRBM):
    """Divides by sigma where its moves divide by sigma squared."""

    def free_energy(self, tau: Tensor, beta: float = 1.0) -> Tensor:
        weight, visible, hidden = self.at(beta)
        v = tau.flatten(-len(self.event_shape))
        return -visible.log_measure(v) - hidden.log_partition(v @ (weight * self.log_scale.exp().unsqueeze(1)))


@pytest.mark.parametrize(
    ("mutant", "law"),
    [
        (SpinsReadAsBits, "moves_leave_p_beta_invariant"),
        (ForgetsTheConstant, "annealed_weight_is_a_ratio_of_z"),
        (ScaleForVariance, "enumeration_sums_to_z"),
    ],
)
def test_mutant_dies(mutant: type, law: str) -> None:
    assert law in {verdict.law for verdict in examine_prior(mutant) if not verdict.held}


def test_the_gauge_does_not_drift() -> None:
    """What is added to all categories of a unit leaves the machine as it is, and its log Z too."""
    prior = scatter(PottsRBM((3,), num_categories=3, num_hidden=2), 1)
    states = all_states(prior.support, (3,))
    before = prior.free_energy(states).detach()
    log_z = enumeration.log_sum(prior)
    prior.weight.data += torch.randn(3, 1, 2).double()
    prior.visible_bias.data += torch.randn(3, 1).double()
    assert torch.allclose(prior.free_energy(states), before)
    assert enumeration.log_sum(prior) == pytest.approx(log_z)
    prior.free_energy(states).sum().backward()
    for parameter in (prior.weight, prior.visible_bias):
        assert torch.allclose(parameter.grad.sum(1), torch.zeros(()).double(), atol=1e-9)  # nothing pulls it along


def test_weights_of_another_gauge_keep_their_probabilities() -> None:
    torch.manual_seed(0)
    weight, visible, hidden = torch.randn(3, 3, 2) + 1, torch.randn(3, 3) - 2, torch.randn(2)
    prior = PottsRBM.from_weights(weight, visible, hidden)
    states = all_states(prior.support, (3,)).float()
    index = states.long()
    field = sum(weight[i, index[:, i]] for i in range(3)) + hidden
    direct = sum(visible[i, index[:, i]] for i in range(3)) + torch.nn.functional.softplus(field).sum(1)
    assert torch.allclose(-prior.free_energy(states), direct, atol=1e-4)


@pytest.mark.parametrize("prior", [SpinRBM, PottsRBM, GaussianRBM])
def test_both_sides_of_log_z_hold_it(prior: type) -> None:
    """Also where the hidden side is the smaller one, and where chains are weighed by the kernels of bits."""
    torch.manual_seed(1)
    made = scatter(prior((6,), num_hidden=4), 1, 0.4)
    exact = enumeration.log_sum(made)
    made.fit_base(enumeration.draw(made, 500))
    both, _ = annealing.sandwich(made, schedules.make("linear", 100), 300, 0)
    assert not both.upper.heuristic
    for side in both.estimates:
        assert abs(side.value - exact) < 4.75 * side.stderr < 0.5


def test_a_spin_machine_is_a_machine_of_bits_to_the_constant() -> None:
    prior = scatter(SpinRBM((4,), num_hidden=3), 1)
    *machine, offset = prior.as_bits()
    bits = RBM((4,), num_hidden=3).double()
    bits.load_state_dict(dict(zip(("weight", "visible_bias", "hidden_bias"), machine, strict=True)), strict=False)
    tau = all_states(spin, (4,))
    assert torch.allclose(prior.free_energy(tau), bits.free_energy((tau + 1) / 2) - offset)
    assert enumeration.log_sum(prior) == pytest.approx(enumeration.log_sum(bits) + offset.item())


@pytest.mark.parametrize("shape", [(4, 3), (150, 120)])
def test_spins_move_as_the_bits_that_they_map_to_at_every_temperature(shape: tuple[int, int]) -> None:
    """Also at a size where compiled loops take over: equal seeds, equal moves, and energies to the constant."""
    num_visible, num_hidden = shape
    torch.manual_seed(0)
    prior = scatter(SpinRBM((num_visible,), num_hidden=num_hidden), 1, 0.1).float()
    prior.base_bias.normal_()
    *machine, offset = prior.as_bits()
    bits = RBM((num_visible,), num_hidden=num_hidden)
    named = dict(zip(("weight", "visible_bias", "hidden_bias"), machine, strict=True))
    bits.load_state_dict(named | {"base_bias": 2 * prior.base_bias}, strict=False)
    tau = prior.base_sample(64)
    v = (tau + 1) / 2
    for beta in (0.0, 0.3, 1.0):
        constant = (1 - beta) * prior.base_bias.sum() - beta * offset
        moved = []
        for one, state in ((prior, tau), (bits, v)):
            torch.manual_seed(1)
            moved.append(one.gibbs(state, 3, beta))
        assert torch.equal(moved[0], 2 * moved[1] - 1)
        # in float64, since a constant of thousands of nats is taken off
        own = deepcopy(prior).double().free_energy(tau.double(), beta)
        theirs = deepcopy(bits).double().free_energy(v.double(), beta)
        assert torch.allclose(own, theirs + constant.double(), atol=1e-3)


@pytest.mark.parametrize("ratio", [3.0, 0.0, -3.0, -20.0, -300.0])
def test_rectified_draws_follow_their_density(ratio: float) -> None:
    """However far in the tail of the normal zero lies."""
    torch.manual_seed(0)
    made = Rectified(torch.tensor(2 * ratio).double(), torch.tensor(2.0).double())
    draws = made.sample((20_000,)).sort().values
    assert draws.isfinite().all()
    assert draws.min() >= 0
    top = draws[-1] * 1.5
    grid = torch.linspace(0, top.item(), 200_001).double()
    density = made.log_prob(grid).exp()
    below = ((density[1:] + density[:-1]) / 2 * grid.diff()).cumsum(0)
    assert below[-1].item() == pytest.approx(1, abs=1e-3)
    position = torch.searchsorted(grid[1:].contiguous(), draws).clamp(max=len(below) - 1)
    rank = (torch.arange(len(draws)) + 0.5) / len(draws)
    assert (below[position] - rank).abs().max() * math.sqrt(len(draws)) < 2.7
    assert made.mean.item() == pytest.approx(draws.mean().item(), rel=0.05)


def test_counts_are_drawn_as_they_are_scored() -> None:
    torch.manual_seed(0)
    units = CountUnits(torch.tensor([-1.5, 0.3, 2.0]).double(), 4)
    field = torch.tensor([[0.5, 0.0, -0.2]]).double()
    listed = all_states(units.support, (3,))
    draws = units.given(field).sample((20_000,)).squeeze(1)
    statistic, limit = chi_square(number(draws, units.support), units.log_prob(listed, field).squeeze(1).exp())
    assert statistic < limit


def test_bits_of_another_kind_are_refused_and_posteriors_found() -> None:
    assert type(likelihood_over(spin)).__name__ == "Spins"
    over = likelihood_over(integer_interval(0, 4))
    assert over.support.upper_bound == 4
    with pytest.raises(UsageError, match="is over spins, but the data hold 0"):
        require(SpinRBM((2,)).support, torch.zeros(1, 2), "it")
    joint = Identity().build(PottsRBM((2,)), Gaussian(), Gaussian(), torch.zeros(2))
    with pytest.raises(UsageError, match="over whole numbers from 0 to 2, but the data hold 3"):
        joint.check(torch.tensor([[0.0, 3.0]]))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_scales_that_are_none_are_refused(scale: float) -> None:
    given = torch.zeros(2, 3), torch.zeros(2), torch.zeros(3), torch.tensor([1.0, scale])
    with pytest.raises(UsageError, match="scales must be positive, but one is") as caught:
        GaussianRBM.from_weights(*given)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PottsRBM((2,), num_categories=1), "potts_rbm: num_categories must be at least 2, not 1"),
        (lambda: SpinRBM((2,), num_hidden=0), "spin_rbm: num_hidden must be at least 1"),
        (lambda: GaussianRBM((2,), num_replicas=0), "num_replicas must be at least 1"),
    ],
)
def test_sizes_that_are_none_are_refused(make, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


def fasta(path: Path, rows: list[str]) -> Path:
    path.write_text("".join(f">s{i} of a family\n{row[:3]}\n{row[3:]}\n" for i, row in enumerate(rows)))
    return path


def test_an_alignment_is_read_as_categories(tmp_path: Path) -> None:
    rows = ["ACD-a.", "CCDA", "YYYY"] * 7
    splits = Alignment(file=fasta(tmp_path / "family.fasta", rows)).load()
    assert splits.train[0].tolist() == [1, 2, 3, 0]
    assert splits.support.upper_bound == 20
    assert [len(x) for _, x in splits.items()] == [17, 2, 2]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["ACDE"] * 10 + ["ACBE"], "s10 has the letter 'B', which is none of '-ACDE"),
        (["ACDE"] * 10 + ["ACD"], "s10 has 3 letters and the first 4; align them"),
        (["ACDE"] * 9, "holds 9 sequences; ten at least"),
    ],
)
def test_an_alignment_that_is_none_is_refused(rows: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        Alignment(file=fasta(tmp_path / "family.fasta", rows)).load()
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_no_alignment_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read as text"):
        Alignment(file=tmp_path / "x").load()
    with pytest.raises(UsageError, match="which file"):
        Alignment().load()
    with pytest.raises(UsageError, match="stands twice"):
        Alignment(file=tmp_path / "x", letters="AAC").load()


def trained(prior, x: Tensor, steps: int, rate: float):
    """By persistent chains, the scale of reals ten times more slowly."""
    joint = Identity().build(prior, Gaussian(), Gaussian(), x.mean(0))
    slow = [value for name, value in joint.named_parameters() if name.endswith("log_scale")]
    fast = [value for name, value in joint.named_parameters() if not name.endswith("log_scale")]
    optimizer = torch.optim.Adam([{"params": fast, "lr": rate}, {"params": slow, "lr": rate / 10}])
    estimator = CD(chain="persistent")
    for _ in range(steps):
        joint.advance()
        optimizer.zero_grad()
        estimator(joint, x[torch.randint(len(x), (100,))]).surrogate.mean().backward()
        optimizer.step()
    return prior.eval()


def ising(count: int) -> Tensor:
    """Exact configurations of a 3 x 3 torus at the temperature 2.3, by listing all."""
    states = all_states(spin, (3, 3))
    bonds = (states * (states.roll(1, 1) + states.roll(1, 2))).sum((1, 2))
    return states[(bonds / 2.3).softmax(0).multinomial(count, replacement=True)].float()


def family(count: int) -> Tensor:
    """Sequences of six sites and three letters, drawn exactly from a Potts model of neighbors."""
    states = all_states(integer_interval(0, 2), (6,))
    same = (states == states.roll(1, 1)).double()
    log_p = 1.5 * same.sum(1) + (states == 1).double().sum(1) / 3
    return states[log_p.softmax(0).multinomial(count, replacement=True)].float()


def mixture(count: int) -> Tensor:
    centers = torch.tensor([[2.0, 0.0, -1.0], [-1.0, 1.5, 1.0], [0.0, -2.0, 0.0]])
    return centers[torch.randint(3, (count,))] + 0.5 * torch.randn(count, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "data", "rate"),
    [
        (lambda: SpinRBM((3, 3), num_hidden=8), ising, 0.01),
        (lambda: PottsRBM((6,), num_hidden=8), family, 0.02),
        (lambda: GaussianRBM((3,), num_hidden=6), mixture, 0.01),
    ],
    ids=["ising", "family", "mixture"],
)
def test_trained_and_certified(make, data, rate: float) -> None:
    """The exact likelihood lies in the certified interval, and training has found most of what there is."""
    torch.manual_seed(0)
    x, test = data(2000), data(1000)
    prior = make()
    start = prior.free_energy(test).mean().item() + enumeration.log_sum(prior)
    prior = trained(prior, x, 800, rate)
    exact = -prior.free_energy(test).double().mean().item() - enumeration.log_sum(prior)
    found = certify(prior, test, train=x, num_chains=100, temperatures=300, raise_cases=20)
    assert found.verdict == "certified", found.reasons
    assert found.test_ll_low - 0.01 <= exact <= found.test_ll_high + 0.01
    assert found.test_ll_high - found.test_ll_low < 0.3
    assert -exact < start - 0.2
