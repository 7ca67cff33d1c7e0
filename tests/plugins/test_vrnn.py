"""Model `vrnn`, and what recurrent models have in common: states computed once, padding, and the filtering bound."""

from pathlib import Path

import numpy as np
import pytest
import torch
from padding import padded
from running import called, refused
from torch import Tensor
from torch.distributions import Distribution
from unibound_plugins.likelihoods.bernoulli import Bernoulli as BernoulliLikelihood
from unibound_plugins.likelihoods.gaussian import Gaussian as GaussianLikelihood
from unibound_plugins.models.vrnn import GRU, VRNN
from unibound_plugins.priors.bernoulli import Bernoulli
from unibound_plugins.priors.gaussian import Gaussian

from unibound import JointBound, UsageError
from unibound.draws import Chain, draw
from unibound.networks import Inference
from unibound.runs.train import Training
from unibound.sequences.filtering import filtering_bound
from unibound.sequences.recurrent import RecurrentGeneration, RecurrentInference
from unibound.settings import sources
from unibound.testing.listing import all_bits, scatter
from unibound.weights import log_mean_exp

STEPS = 3


def built(flags: bool = False, reals: bool = False) -> JointBound:
    torch.manual_seed(0)
    reads = GaussianLikelihood() if reals else BernoulliLikelihood()
    prior = Gaussian((1,)) if reals else Bernoulli((1,))
    mean = torch.full((STEPS, 2 + flags), 0.4)
    return scatter(VRNN(num_latents=1, width=3, flags=flags).build(prior, BernoulliLikelihood(), reads, mean), 1)


def log_p(joint: JointBound, x: Tensor) -> Tensor:
    """log p(x) by listing latents [N], where q puts those of padding at 0."""
    taus = all_bits((STEPS,)).unsqueeze(1).expand(-1, len(x), -1)
    absent = torch.stack([1 - x[:, t, 0] for t in range(STEPS)], -1)
    own = joint.p.log_joint(x, taus).masked_fill((taus * absent).sum(-1) > 0, -torch.inf)
    return own.logsumexp(0)


def faults_of_padding(joint: JointBound) -> list[str]:
    """What padding counts for, though it should count for nothing."""
    zeros, ones = padded([1, 2, 3], 0.0, STEPS), padded([1, 2, 3], 1.0, STEPS)
    tau = (all_bits((STEPS,)).unsqueeze(1) * zeros[:, :, 0]).expand(-1, 3, -1)
    terms = joint.log_weight_terms(zeros, tau)  # [1 + T, S, N]
    own = joint.p.log_joint(zeros, tau)
    first, _ = joint.p.step(joint.p.recurrence.start(tau.shape[:-1]), zeros, tau[..., :1], 0)
    found = {
        "q": (joint.q(zeros).log_prob(tau) - joint.q(ones).log_prob(tau)).abs().max(),
        "p": (own - joint.p.log_joint(ones, tau)).abs().max(),
        "latents": terms[2:, :, 0].abs().max(),  # of a sequence of one step, in those it has not
        "data": (terms[0, :, 0] - first[:, 0]).abs().max(),
    }
    assert (terms[2:, :, 2] != 0).all()
    return [name for name, value in found.items() if value > 1e-9]


def test_padding_counts_for_nothing() -> None:
    assert faults_of_padding(built(flags=True)) == []


class LatentsCounted(RecurrentGeneration):
    def score(self, state: Tensor, z: Tensor, part: Tensor, there: Tensor | None, t: int) -> tuple[Tensor, Tensor]:
        log_x, _ = super().score(state, z, part, there, t)
        return log_x, super().score(state, z, part, None, t)[1]


class DataCounted(RecurrentGeneration):
    def score(self, state: Tensor, z: Tensor, part: Tensor, there: Tensor | None, t: int) -> tuple[Tensor, Tensor]:
        _, log_z = super().score(state, z, part, there, t)
        return super().score(state, z, part, None, t)[0], log_z


class DrawsCounted(RecurrentInference):
    def step(self, state: Tensor, x: Tensor, memory: Tensor | None, t: int) -> Distribution:
        return self.follower(state, x, memory, t)


@pytest.mark.parametrize(
    ("mutant", "faults"), [(LatentsCounted, ["latents"]), (DataCounted, ["p", "data"]), (DrawsCounted, ["latents"])]
)
def test_a_mask_that_one_term_forgets_dies(mutant: type, faults: list[str]) -> None:
    joint = built(flags=True)
    (joint.q if mutant is DrawsCounted else joint.p).__class__ = mutant
    assert set(faults_of_padding(joint)) >= set(faults)


def test_sequences_of_a_length_sum_to_one() -> None:
    joint, states = built(flags=True), all_bits((STEPS, 2))
    for length in range(1, STEPS + 1):
        flag = (torch.arange(STEPS) < length).double().view(1, STEPS, 1).expand(len(states), -1, -1)
        x = torch.cat([flag, states], -1)
        alike = x[(states * (1 - flag)).flatten(1).sum(1) == 0]  # what pads is always the same
        torch.testing.assert_close(log_p(joint, alike).logsumexp(0), torch.tensor(0.0).double())


class Unmasked(GRU):
    """Padding forgotten in the data's own term."""

    def there(self, x: Tensor, t: int) -> Tensor | None:
        return None


def test_a_forgotten_mask_dies() -> None:
    joint, states = built(flags=True), all_bits((STEPS, 2))
    joint.p.recurrence.__class__ = Unmasked
    flag = torch.tensor([1.0, 0.0, 0.0]).double().view(1, STEPS, 1).expand(len(states), -1, -1)
    x = torch.cat([flag, states], -1)[(states[:, 1:] == 0).flatten(1).all(1)]
    taus = all_bits((STEPS,)).unsqueeze(1).expand(-1, len(x), -1)
    total = joint.p.log_joint(x, taus).logsumexp(0).logsumexp(0)
    assert total < -0.1, "sequences of one step sum to one only with their padding left out"


def test_states_along_a_draw_are_computed_once() -> None:
    joint, calls = built(), []
    joint.p.recurrence.cell.register_forward_hook(lambda *_: calls.append(1))
    x = torch.ones(4, STEPS, 2).double()
    tau, log_q = draw(joint.q(x), 5)
    assert len(calls) == STEPS - 1
    torch.testing.assert_close(log_q, joint.q(x).log_prob(tau))
    assert isinstance(joint.q(x), Chain)


@pytest.mark.parametrize("flags", [False, True])
def test_p_takes_over_the_states_that_a_draw_went_through(flags: bool) -> None:
    joint, calls = built(flags, reals=True), []
    joint.p.recurrence.cell.register_forward_hook(lambda *_: calls.append(1))
    x = padded([1, 2, 3], 0.0, STEPS) if flags else torch.ones(3, STEPS, 2).double()
    made = joint.particles(x, 5, reparameterized=True)
    assert len(calls) == STEPS - 1
    torch.testing.assert_close(made.log_p, joint.p.log_joint(x, made.tau))


def test_p_takes_over_nothing_from_another_draw() -> None:
    joint, x = built(reals=True), torch.ones(4, STEPS, 2).double()
    posterior = joint.q(x)
    older, newer = (draw(posterior, 5)[0] for _ in range(2))
    posterior.log_prob(older)  # walks another way than the draw did
    for data, tau in ((x, older), (x, newer), (x, newer.clone()), (1 - x, newer)):
        torch.testing.assert_close(joint.p.log_joint_along(data, tau, posterior), joint.p.log_joint(data, tau))
    with torch.no_grad():
        without = draw(posterior, 5)[0]
    joint.p.log_joint_along(x, without, posterior).sum().backward()
    assert joint.p.recurrence.cell.weight_hh.grad.any(), "states of a draw without gradients have none"
    other = scatter(built(reals=True), 2)
    torch.testing.assert_close(other.p.log_joint_along(x, newer, posterior), other.p.log_joint(x, newer))


@pytest.mark.parametrize("path_only", [False, True])
def test_where_the_way_back_may_be_weighed_all_of_it_leads_through_tau(path_only: bool) -> None:
    joint = built(reals=True)
    particles = joint.particles(torch.ones(4, STEPS, 2).double(), 5, reparameterized=True, path_only=path_only)
    particles.tau.register_hook(lambda gradient: 0 * gradient)
    particles.log_p.sum().backward()
    reached = any(one.grad is not None and bool(one.grad.any()) for one in joint.q.parameters())
    assert reached is not path_only


def test_steps_scored_at_once_are_those_scored_in_turn() -> None:
    joint = built(flags=True)
    zeros = padded([1, 2, 3], 0.0, STEPS)
    tau = torch.rand(2, 4, 3, STEPS).round().double()
    at_once = joint.p.step_terms(zeros, tau)
    joint.p.recurrence.steady = False
    for found, expected in zip(at_once, joint.p.step_terms(zeros, tau), strict=True):
        assert found.shape == (STEPS, 2, 4, 3)
        torch.testing.assert_close(found, expected)


def test_the_filtering_bound_is_below_and_its_mean_weight_right() -> None:
    torch.manual_seed(0)
    joint, x = built(), torch.ones(1, STEPS, 2).double()
    taus = all_bits((STEPS,)).unsqueeze(1)
    exact = joint.p.log_joint(x, taus).logsumexp(0)
    with torch.no_grad():
        found = filtering_bound(joint.q, joint.p, x.expand(20_000, -1, -1), 3)
    assert found.mean() < exact
    error = found.exp().std() / 20_000**0.5
    assert (found.exp().mean() - exact.exp()).abs() < 4 * error
    one = filtering_bound(joint.q, joint.p, x.expand(20_000, -1, -1), 1).mean()
    posterior = joint.q(x)
    elbo = (posterior.log_prob(taus).exp() * (joint.p.log_joint(x, taus) - posterior.log_prob(taus))).sum()
    assert (one - elbo).abs() < 0.05


def test_dreams_are_of_p() -> None:
    torch.manual_seed(0)
    joint = built()
    x, tau = joint.p.dream(20_000)
    states = all_bits((STEPS, 2))
    taus = all_bits((STEPS,)).unsqueeze(1).expand(-1, len(states), -1)
    chance = joint.p.log_joint(states, taus).logsumexp(0).exp()
    torch.testing.assert_close(chance.sum(), torch.tensor(1.0).double())
    seen = torch.stack([(x == state).flatten(1).all(1).double().mean() for state in states])
    assert (seen - chance).abs().max() < 0.02
    assert tau.shape == (20_000, STEPS)


@pytest.mark.parametrize("name", ["sgvb", "vimco"])
def test_it_learns_sequences_of_any_length(name: str) -> None:
    joint = built(flags=True, reals=name == "sgvb").float()
    x = padded([1, 2, 3] * 10, 0.0, STEPS).float()
    x[..., 2] = x[..., 1]

    def bound() -> float:
        torch.manual_seed(0)
        with torch.no_grad():
            return log_mean_exp(joint.particles(x, 100).log_weights).mean().item()

    before, values = bound(), {"estimator": {"name": name, "num_particles": 4}, "epochs": 25}
    values["optimizer"] = {"learning_rate": 0.03}
    list(Training(joint, sources.resolve([sources.Layer(values)]).stages, x, batch_size=15).epochs())
    assert bound() > before + 0.3


def test_a_q_that_follows_needs_what_it_follows() -> None:
    q = built().q
    with pytest.raises(UsageError, match="has not seen it"):
        type(q)(q.follower)(torch.ones(1, STEPS, 2).double())
    assert isinstance(q, Inference)
    assert isinstance(built().p, RecurrentGeneration)


def test_flags_without_a_feature_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = (np.random.default_rng(0).random((30, 4)) < 0.4).astype(np.float32)
    np.savez(tmp_path / "data.npz", train=x[:20], valid=x[20:25], test=x[25:])
    words = ["--data", tmp_path / "data.npz", "--model", "vrnn", "--model.flags", "--prior", "bernoulli"]
    refused(called(capsys, "run", *words, "--run-dir", tmp_path / "run"), "vrnn with flags is of sequences")


def test_a_file_of_sequences_says_how_long_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = (np.random.default_rng(0).random((30, STEPS, 2)) < 0.4).astype(np.float32)
    parts = {"train": x[:20], "valid": x[20:25], "test": x[25:]}
    lengths = {f"{name}_lengths": np.arange(len(part)) % STEPS + 1 for name, part in parts.items()}
    np.savez(tmp_path / "good.npz", **parts, **lengths)
    np.savez(tmp_path / "long.npz", **parts, **lengths | {"test_lengths": np.full(5, STEPS + 1)})
    words = ["--model", "vrnn", "--model.flags", "--prior", "bernoulli"]
    words += ["--epochs", "1", "--num-particles", "3", "--batch-size", "10"]
    refused(
        called(capsys, "run", "--data", tmp_path / "long.npz", *words, "--run-dir", tmp_path / "long"),
        f"test_lengths hold {STEPS + 1}, but a sequence has from 1 to {STEPS} steps",
    )
    assert called(capsys, "run", "--data", tmp_path / "good.npz", *words, "--run-dir", tmp_path / "good").code == 0
