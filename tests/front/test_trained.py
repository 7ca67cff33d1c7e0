"""What can be asked of a trained model, with and without its data."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import unibound
from unibound import JointBound, UsageError
from unibound.front.imputation import impute
from unibound.testing.listing import all_bits

RNG = np.random.default_rng(0)
X = ((RNG.random((4, 3, 2)) < 0.5)[RNG.integers(0, 4, 100)] ^ (RNG.random((100, 3, 2)) < 0.1)).astype(np.float32)
WORDS = {
    "model": {"name": "mlp", "num_latents": 4, "hidden": [8]},
    "prior": {"name": "rbm", "num_hidden": 3, "num_chains": 5},
    "partition": "exact",
    "estimator": "rws",
    "epochs": 3,
    "num_particles": 50,
    "progress": False,
}


@pytest.fixture(scope="module")
def model() -> unibound.Trained:
    return unibound.fit(X, **WORDS)


def test_arrays_come_out_as_they_went_in(model: unibound.Trained) -> None:
    for x in (X[:5], torch.from_numpy(X[:5])):
        kind = type(x)
        tau = model.encode(x)
        assert isinstance(tau, kind)
        assert tau.shape == (5, 4)
        assert ((tau >= 0) & (tau <= 1)).all()
        bits = (tau > 0.5) * 1.0
        assert isinstance(model.decode(bits), kind)
        assert model.decode(bits).shape == (5, 3, 2)
        assert isinstance(model.reconstruct(x), kind)
        assert model.reconstruct(x).shape == (5, 3, 2)
        assert isinstance(model.score(x), kind)
        assert model.score(x).shape == (5,)
    assert set(np.unique(model.sample(7))) <= {0.0, 1.0}
    assert 0 < model.sample(7, means=True).mean() < 1


def test_scores_are_what_an_evaluation_is_the_mean_of(model: unibound.Trained) -> None:
    assert -model.score(X[:30]).mean() == pytest.approx(model.evaluate(X[:30]).nll, abs=1e-9)
    exact, states = model.joint.p.prior, all_bits((4,)).float()  # pyright: ignore
    log_z = -(-exact.free_energy(states)).double().logsumexp(0)
    x = torch.from_numpy(X[:30])
    every = states.unsqueeze(1).expand(-1, len(x), -1)
    with torch.no_grad():
        log_p = model.joint.p.log_joint(x, every).double().logsumexp(0) + log_z
    scores = model.score(x, num_particles=5000)
    assert ((scores - log_p).abs() < 0.2).all()
    assert scores.mean() <= log_p.mean() + 0.02


def test_a_seed_repeats_a_draw_and_none_does_not(model: unibound.Trained) -> None:
    for draw in (lambda seed: model.sample(20, seed=seed), lambda seed: model.reconstruct(X[:20], seed=seed)):
        assert (draw(1) == draw(1)).all()
        assert (draw(1) != draw(2)).any()
        assert (draw(None) != draw(None)).any()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model.sample(3, seed=1), model.score(X[:2]), model.evaluate(X[:4])
    assert torch.equal(before, torch.get_rng_state())


def test_what_is_asked_leaves_the_mode_as_it_was(model: unibound.Trained) -> None:
    for training in (True, False):
        model.joint.train(training)
        model.encode(X[:2]), model.sample(2), model.score(X[:2]), model.reconstruct(X[:2])
        assert all(module.training is training for module in model.joint.modules())


def test_a_file_that_is_gone_is_not_missed(tmp_path: Path) -> None:
    np.savez("data.npz", train=X[:60], valid=X[60:80], test=X[80:])
    model = unibound.fit("data.npz", run_dir="run", **WORDS)
    Path("data.npz").rename("elsewhere.npz")
    again = unibound.load("run")
    assert (again.encode(X[:5]) == model.encode(X[:5])).all()
    assert (again.sample(5, seed=1) == model.sample(5, seed=1)).all()
    np.testing.assert_allclose(again.score(X[:5]), model.score(X[:5]), atol=1e-6)
    assert again.impute(X[:2], np.ones_like(X[:2])).shape == (2, 3, 2)
    for needs in (again.evaluate, again.certify, again.diagnose):
        with pytest.raises(UsageError, match=r"data\.npz"):
            needs()
    np.savez("data.npz", train=1 - X[:60], valid=X[60:80], test=X[80:])
    with pytest.raises(UsageError, match="not those"):
        again.certify()


def test_other_data_than_it_was_trained_on_are_refused(model: unibound.Trained, tmp_path: Path) -> None:
    kept = model.save(tmp_path / "kept")
    assert unibound.load(kept, X).evaluate(num_particles=5).nll > 0
    with pytest.raises(UsageError, match="not those"):
        unibound.load(kept, 1 - X).evaluate()


def test_new_data_are_brought_to_bits_as_the_training_data_were() -> None:
    grey = (X * 10 + RNG.integers(0, 5, X.shape)).astype(int)  # levels from 0 to 14, of 16
    model = unibound.fit(grey, levels=16, **WORDS | {"epochs": 1})
    assert model.run.known.prepared.startswith("16 grey levels set to bits")
    bits = (grey / 15 >= 0.5).astype(int)
    same = unibound.fit(bits, **WORDS | {"epochs": 1})
    assert (model.encode(grey[:6]) == same.encode(bits[:6])).all()
    assert (model.encode(grey[:1] * 0) == same.encode(bits[:1] * 0)).all()  # data that do not vary
    assert (model.encode(bits[:6]) != same.encode(bits[:6])).any()  # bits are the two least levels here
    with pytest.raises(UsageError, match="whole numbers from 0 to 15"):
        model.encode(grey[:6] + 1000)
    with pytest.raises(UsageError, match="bits"):
        same.encode(grey[:6] / 15)


def test_a_certificate_and_a_diagnosis(model: unibound.Trained) -> None:
    found = model.certify(num_chains=20, temperatures=50, num_particles=200, raise_cases=0, posterior="draws")
    assert found.verdict == "certified"
    assert model.certify(X[:20], num_chains=20, temperatures=50, raise_cases=0, posterior="none").num_data == 20
    found = model.diagnose(num_particles=20, count=5, probe_steps=9)
    assert found.units == 4
    assert found.composition["generator"].side == "lower"


def test_a_notebook_shows_the_verdict_and_pictures(model: unibound.Trained) -> None:
    page = model._repr_html_()
    assert "test NLL" in page
    assert page.count("data:image/png;base64,") == 2
    assert "<script" not in page
    assert model.report().exists()
    assert [line["done"] for line in model.history] == [1, 2, 3]


class Known:
    """A model whose p(x_missing | x_observed) can be listed."""

    def __init__(self, joint: JointBound) -> None:
        self.joint, self.xs, self.taus = joint, all_bits((3, 2)).float(), all_bits((4,)).float()
        every = self.taus.unsqueeze(1).expand(-1, len(self.xs), -1)
        with torch.no_grad():
            self.log_p = joint.p.log_joint(self.xs, every).double().logsumexp(0)

    def mean(self, x: Tensor, missing: Tensor) -> Tensor:
        agree = ((self.xs == x) | missing).flatten(1).all(1)
        weights = torch.where(agree, self.log_p, -math.inf).softmax(0)
        return (weights.view(-1, 1, 1) * self.xs).sum(0)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_what_is_imputed_is_the_exact_expectation_however_bad_q_is(model: unibound.Trained, scale: float) -> None:
    kept = {name: value.clone() for name, value in model.joint.state_dict().items()}
    with torch.no_grad():
        for parameter in model.joint.parameters():
            parameter.mul_(scale)
    x = torch.from_numpy(X[:3])
    missing = torch.zeros_like(x).bool()
    missing[0, :2], missing[1], missing[2, 0, 0] = True, True, True
    torch.manual_seed(0)
    found = impute(model.joint, x.repeat(300, 1, 1), missing.repeat(300, 1, 1), 300).view(300, 3, 3, 2)
    known = Known(model.joint)
    for row in range(3):
        stderr = found[:, row].std(0) / math.sqrt(300) + 1e-6
        assert ((found[:, row].mean(0) - known.mean(x[row], missing[row])).abs() < 5 * stderr + 0.01).all()
    assert (found[:, ~missing] == x[~missing]).all()
    model.joint.load_state_dict(kept)


def test_missing_elements_are_those_that_are_not_numbers(model: unibound.Trained) -> None:
    x = X[:3].copy()
    x[:, 0] = np.nan
    found = model.impute(x, steps=10, seed=1)
    assert (found[:, 1:] == X[:3, 1:]).all()
    assert (found == model.impute(X[:3], np.isnan(x), steps=10, seed=1)).all()


MISTAKES: dict[str, tuple[Callable[[unibound.Trained], object], str]] = {
    "an estimator that there is not": (lambda m: unibound.fit(X, estimator="vimc"), "did you mean 'vimco'"),
    "a setting that there is not": (lambda m: unibound.fit(X, epochz=3), "did you mean 'epochs'"),
    "a setting of a plugin that there is not": (lambda m: unibound.fit(X, prior__num_hiden=3), "num_hidden"),
    "no particles": (lambda m: unibound.fit(X, estimator__num_particles=0), "at least 2"),
    "no epochs": (lambda m: unibound.fit(X, epochs=-1), "epochs"),
    "a word for a number": (lambda m: unibound.fit(X, epochs="ten"), "a whole number"),
    "a path that is none": (lambda m: unibound.fit("nowhere.npz"), "no such file"),
    "a name that is none": (lambda m: unibound.fit("digit"), "digits"),
    "a recipe that is none": (lambda m: unibound.fit(X, config="mnist"), "no recipe"),
    "words for data": (lambda m: unibound.fit([["a", "b"]]), "not numbers"),
    "rows of unequal lengths": (lambda m: unibound.fit([[0, 1], [1]]), "same shape"),
    "objects for data": (lambda m: unibound.fit(object()), "not numbers"),
    "complex numbers": (lambda m: unibound.fit(X.astype(complex)), "not numbers"),
    "a complex tensor": (lambda m: unibound.fit(torch.from_numpy(X) * 1j), "complex"),
    "a sparse tensor": (lambda m: unibound.fit(torch.from_numpy(X).to_sparse()), "a sparse_coo tensor; give a dense"),
    "a meta tensor": (lambda m: m.score(torch.from_numpy(X).to("meta")), "x is a meta tensor"),
    "a nested tensor": (
        lambda m: m.encode(torch.nested.nested_tensor([torch.zeros(3), torch.ones(2)], layout=torch.jagged)),
        "x is a jagged tensor",
    ),
    "data of one dimension": (lambda m: unibound.fit(X[:, 0, 0]), "[count, pixels...]"),
    "nothing": (lambda m: unibound.fit(X[:0]), "too few"),
    "one datum": (lambda m: unibound.fit(X[:1]), "too few"),
    "what is no number": (lambda m: unibound.fit(X * np.nan), "NaN"),
    "data all the same": (lambda m: unibound.fit(X * 0), "the same"),
    "spins": (lambda m: unibound.fit(2 * X - 1), "spins"),
    "a split that there is not": (lambda m: unibound.fit({"trian": X}), "did you mean 'train'"),
    "no training data": (lambda m: unibound.fit({"test": X}), "'train'"),
    "splits of two shapes": (lambda m: unibound.fit({"train": X, "test": X[:, :2]}), "one shape"),
    "levels of a file": (lambda m: unibound.fit("digits", levels=17), "levels"),
    "one level": (lambda m: unibound.fit(X, levels=1), "at least 2"),
    "q without p": (lambda m: unibound.fit(X, q=m.joint.q), "together"),
    "a q that is none": (lambda m: unibound.fit(X, q=torch.nn.Linear(2, 2), p=m.joint.p), "unibound.Inference"),
    "a prior of p and another": (lambda m: unibound.fit(X, q=m.joint.q, p=m.joint.p, prior="rbm"), "of its own"),
    "a prior of another shape": (
        lambda m: unibound.fit(X, prior=unibound.registries()["prior"]["bernoulli"]((7,))), "[20]"
    ),
    "an estimator for a prior": (
        lambda m: unibound.fit(X, prior=unibound.registries()["estimator"]["vimco"]()), "VIMCO is no prior"
    ),
    "sgvb for bits": (lambda m: unibound.fit(X, estimator="sgvb"), "reparameterized"),
    "a folder that is no run": (lambda m: unibound.load("."), "not the folder of a run"),
    "data of another shape": (lambda m: m.encode(X[:, :2]), "[N, 3, 2]"),
    "a datum alone": (lambda m: m.encode(X[0]), "[N, 3, 2]"),
    "data of another kind": (lambda m: m.score(X + 0.5), "bits"),
    "latents of another shape": (lambda m: m.decode(np.zeros((2, 3))), "[N, 4]"),
    "latents of another kind": (lambda m: m.decode(np.full((2, 4), 0.5)), "bits"),
    "no samples": (lambda m: m.sample(0), "at least 1"),
    "no particles of an evaluation": (lambda m: m.score(X, num_particles=0), "particles"),
    "no particles for a split": (lambda m: m.evaluate(num_particles=0), "particles"),
    "a split of a run that there is not": (lambda m: m.evaluate(split="half"), "train, valid or test"),
    "a posterior that there is not": (lambda m: m.evaluate(posterior="guess"), "guess"),
    "a mask of another shape": (lambda m: m.impute(X, np.zeros(3)), "shape"),
    "no steps": (lambda m: m.impute(X, steps=0), "at least 1"),
    "a folder that is there": (lambda m: m.save("."), "there already"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str, model: unibound.Trained) -> None:
    make, culprit = MISTAKES[mistake]
    with pytest.raises(unibound.UniboundError) as refused:
        make(model)
    assert culprit in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not list(Path().iterdir())
