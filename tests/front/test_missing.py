"""Data some of whose elements are missing: the likelihood is that of the others, exactly."""

import functools
import json
import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import unibound
from unibound import UsageError, registries, support
from unibound.data.files import File
from unibound.data.tables import read
from unibound.distributions.observed import Observed
from unibound.missing import Fill, observe

RNG = np.random.default_rng(0)
X = ((RNG.random((4, 3, 2)) < 0.5)[RNG.integers(0, 4, 120)] ^ (RNG.random((120, 3, 2)) < 0.1)).astype(np.float32)
GONE = RNG.random(X.shape) < 0.3
HOLES = np.where(GONE, np.nan, X)
SMALL: dict[str, Any] = {
    "model": {"name": "mlp", "num_latents": 4, "hidden": [8]},
    "estimator": "vimco",
    "prior": "bernoulli",
    "epochs": 2,
    "num_particles": 20,
    "progress": False,
}
SHAPE = (3,)
LIKELIHOODS = registries()["likelihood"]
SETTINGS = {"levels": 3, "num_categories": 3, "num_components": 2}


def fit(x: object = HOLES, **words: Any) -> unibound.Trained:
    return unibound.fit(x, **({"missing": "nan"} | SMALL | words))


def made(name: str) -> Any:
    known = {field.name for field in LIKELIHOODS[name].__attrs_attrs__}  # pyright: ignore
    return LIKELIHOODS[name](**{key: value for key, value in SETTINGS.items() if key in known})


def distribution(name: str, shape: tuple[int, ...] = SHAPE) -> torch.distributions.Distribution:
    torch.manual_seed(0)
    likelihood = made(name)
    return likelihood(torch.randn(2, *likelihood.outputs(shape), dtype=torch.float64), shape)


FINITE = [name for name in LIKELIHOODS if support.values(made(name).support) is not None]


@pytest.mark.parametrize("name", FINITE)
@pytest.mark.parametrize("gone", [(0,), (1, 2), (0, 1, 2), ()])
def test_what_is_missing_is_summed_out(name: str, gone: tuple[int, ...]) -> None:
    base = distribution(name)
    listed = support.values(support.of(base))
    assert listed is not None
    x = torch.tensor([listed[0], listed[-1], listed[1]], dtype=torch.float64)
    every = []
    for filling in product(listed, repeat=len(gone)):
        x[list(gone)] = torch.tensor(filling, dtype=torch.float64)
        every.append(base.log_prob(x.clone()))
    x[list(gone)] = math.nan
    found = Observed(base).log_prob(x)
    assert found.shape == (2,)
    torch.testing.assert_close(found, torch.stack(every).logsumexp(0))


@pytest.mark.parametrize("name", [name for name in LIKELIHOODS if name not in FINITE])
def test_densities_of_what_was_observed_integrate_to_one(name: str) -> None:
    base, grid = distribution(name), torch.linspace(-400, 400, 800_001, dtype=torch.float64)
    x = torch.full((len(grid), 1, 3), math.nan, dtype=torch.float64)
    x[:, 0, 1] = grid
    mass = torch.trapezoid(Observed(base).log_prob(x).exp(), grid, dim=0)
    torch.testing.assert_close(mass, torch.ones(2, dtype=torch.float64), atol=1e-2, rtol=0)
    whole = base.sample()
    torch.testing.assert_close(Observed(base).log_prob(whole), base.log_prob(whole))


def test_no_gradient_comes_from_what_is_missing() -> None:
    logits = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    for likelihood in (made("bernoulli")(logits, SHAPE), made("student_t")(torch.stack([logits, logits], -2), SHAPE)):
        (slope,) = torch.autograd.grad(Observed(likelihood).log_prob(torch.tensor([1.0, math.nan, 0.0])).sum(), logits)
        assert (slope[:, 1] == 0).all()
        assert (slope[:, [0, 2]] != 0).all()


def test_channels_that_depend_on_one_another_are_refused() -> None:
    base = distribution("logistic_mixture", (2, 1, 2))
    with pytest.raises(UsageError, match="channels depend on one another"):
        Observed(base).log_prob(torch.full((2, 1, 2), math.nan, dtype=torch.float64))


def world(model: str, **settings: Any) -> tuple[unibound.JointBound, Tensor, Tensor]:
    """A model of four bits, every state of its latents, and every datum."""
    torch.manual_seed(1)
    bits, mean = made("bernoulli"), torch.full((4,), 0.4, dtype=torch.float64)
    recipe = registries()["model"][model](**settings)
    prior = registries()["prior"]["bernoulli"](recipe.prior_shape((4,)))
    joint = recipe.build(prior, bits, bits, mean).double().eval()
    size = joint.q(mean).event_shape.numel()
    taus, xs = (torch.tensor(list(product((0.0, 1.0), repeat=n)), dtype=torch.float64) for n in (size, 4))
    return joint, taus, xs


def log_p(joint: unibound.JointBound, x: Tensor, taus: Tensor) -> Tensor:
    """log p(x) [N], by the list of latents."""
    every = taus.unsqueeze(1).expand(-1, len(x), -1)
    return joint.p.log_joint(x, every).logsumexp(0)


WORLDS = {
    "mlp": {"num_latents": 3, "hidden": (5,)},
    "sbn": {"sizes": (2, 2)},
    "diffusion": {"steps": 2, "hidden": (5,)},
}


@pytest.mark.parametrize("model", WORLDS)
def test_the_likelihood_is_the_marginal_of_a_world_that_is_listed(model: str) -> None:
    joint, taus, xs = world(model, **WORLDS[model])
    whole = log_p(joint, xs, taus)  # [16]
    gone = torch.tensor([False, True, False, True])
    holes = xs.masked_fill(gone, math.nan)
    wanted = torch.stack([whole[(xs[:, ~gone] == x[~gone]).all(1)].logsumexp(0) for x in holes])
    handles = observe(joint.q, joint.p, torch.full((4,), 0.4))
    found = log_p(joint, holes, taus)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(log_p(joint, xs, taus), whole)
    # A mask that is ignored, so that q's mean or a zero stands for what is missing, is another likelihood.
    for handle in handles:
        handle.remove()
    for filling in (0.0, 1.0):
        ignored = log_p(joint, torch.where(gone, filling, xs), taus)
        assert (ignored < wanted - 1e-3).all()


def test_the_mean_of_particles_weighs_to_the_marginal() -> None:
    """q sees the mean: exp(log w) of its draws has the marginal for expectation, whatever q is."""
    joint, taus, xs = world("mlp", **WORLDS["mlp"])
    holes = xs[:1].masked_fill(torch.tensor([False, True, True, False]), math.nan)
    observe(joint.q, joint.p, torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64))
    every = taus.unsqueeze(1)  # [S, 1, Z]
    log_q = joint.q(holes).log_prob(every)
    log_w = joint.p.log_joint(holes, every) - log_q
    torch.testing.assert_close((log_q + log_w).logsumexp(0), log_p(joint, holes, taus))
    assert log_q.isfinite().all()


def test_q_sees_the_mean() -> None:
    x = torch.tensor([[1.0, math.nan], [math.nan, 0.0]])
    (seen,) = Fill(torch.tensor([0.25, 0.75]))(torch.nn.Identity(), (x,))
    assert seen.tolist() == [[1.0, 0.75], [0.25, 0.0]]


def test_masks_and_nan_say_the_same() -> None:
    by_nan, by_mask = fit(), fit(X, missing=GONE)
    assert by_nan.result.nll == by_mask.result.nll
    assert by_nan.score(HOLES, missing="nan").tolist() == by_nan.score(X, missing=GONE).tolist()
    torch.manual_seed(0)
    assert by_nan.score(X).sum() < by_nan.score(X, missing=GONE).sum()  # of fewer bits
    parts = {"train": X[:80], "valid": X[80:100], "test": X[100:]}
    fit(parts, missing={"train": GONE[:80], "test": torch.from_numpy(GONE[100:])})


def test_numbers_are_of_what_was_observed_and_say_so() -> None:
    model = fit()
    share = GONE.mean()
    rows = dict(model.result.rows)
    assert f"{share:.2%} of all elements are missing, and an NLL is of those observed" in rows["data"]
    assert "the NLL of what was observed, " in rows["side"]
    seen = 6 - model.run.split("test").isnan().sum().item() / len(model.run.split("test"))
    assert model.result.bits_per_dim == pytest.approx(model.result.nll / math.log(2) / seen)
    evaluated = model.evaluate(X, missing=GONE, num_particles=30)
    assert evaluated.observed == pytest.approx(6 - GONE.sum() / len(X))
    assert model.evaluate(posterior="ais", num_particles=30).observed == pytest.approx(seen)


def test_a_model_of_whole_data_scores_others_and_stays_what_it_was() -> None:
    model = fit(X, missing=None)
    before = model.score(X)
    some = model.score(X, missing=GONE)
    assert some[GONE.any((1, 2))].sum() > before[GONE.any((1, 2))].sum()
    assert model.score(X).tolist() == before.tolist()
    assert model.encode(HOLES, missing="nan").shape == (120, 4)
    with pytest.raises(UsageError, match=r'x holds NaN; .* say missing="nan"'):
        model.score(HOLES)


def test_a_run_opens_again_and_goes_on(cli: Callable) -> None:
    parts = dict(zip(("train", "valid", "test"), np.split(X, [80, 100]), strict=True))
    masks = {f"{name}_mask": x for name, x in zip(parts, np.split(GONE, [80, 100]), strict=True)}
    np.savez("masks.npz", **parts, **masks)
    np.savez("nan.npz", **{name: np.where(masks[f"{name}_mask"], np.nan, x) for name, x in parts.items()})
    words = [
        "--prior",
        "bernoulli",
        "--model.num-latents",
        "4",
        "--model.hidden",
        "8",
        "--epochs",
        "2",
        "--num-particles",
        "20",
        "--json",
    ]
    by_mask = cli("run", "--data", "masks.npz", "--run-dir", "one", *words)
    by_nan = cli("run", "--data", "nan.npz", "--data.missing", "nan", "--run-dir", "two", *words)
    one, two = (json.loads(result.out) for result in (by_mask, by_nan))
    assert one["nll"] == two["nll"]
    called = unibound.fit("nan.npz", **SMALL | {"missing": "nan", "run_dir": "three"})
    assert called.result.nll == two["nll"]
    assert 'missing = "nan"' in Path("two/resolved.toml").read_text()
    assert json.loads(cli("evaluate", "two", "--json").out)["nll"] == two["nll"]
    assert cli("run", "--resume", "two", "--epochs", "3").code == 0
    for name in ("masks.npz", "nan.npz"):
        Path(name).unlink()
    opened = unibound.load("one")
    assert np.isfinite(opened.score(HOLES, missing="nan")).all()
    assert np.isfinite(opened.impute(HOLES)).all()


def test_grey_levels_are_brought_to_bits_where_they_were_observed() -> None:
    grey = RNG.integers(0, 17, (60, 6))
    gone = RNG.random(grey.shape) < 0.2
    model = fit(grey, missing=gone, levels=17, epochs=1)
    train = model.run.split("train")
    assert set(train[~train.isnan()].tolist()) == {0.0, 1.0}
    assert "17 grey levels set to bits at one half" in model.result.prepared
    with pytest.raises(UsageError, match="dynamic is of whole data"):
        fit(grey, missing=gone, levels=17, binarization="dynamic")


def test_an_element_that_is_never_seen_has_the_mean_of_all() -> None:
    gone = np.zeros_like(GONE)
    gone[:, 0, 0] = True
    model = fit(X, missing=gone)
    mean = model.run.known.mean
    assert mean[0, 0].item() == pytest.approx(np.delete(mean.flatten().numpy(), 0).mean(), abs=1e-5)


def test_tables_have_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(
        "a,b,label\n" + "\n".join(f"{row % 2},{'' if row % 3 == 0 else 1 - row % 2},c" for row in range(30))
    )
    with pytest.raises(UsageError, match='row 2 misses a value; mend or drop it, or say missing="nan"'):
        read(path)
    found = File(path, missing="nan").load()
    assert support.describe(found.support) == "bits, some of them missing"
    assert sum(getattr(found, name).isnan().sum().item() for name in ("train", "valid", "test")) == 10


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "identity": ({"model": "identity", "prior": "rbm", "estimator": "cd"}, "elements of PointMass are not independent"),
    "decoder": ({"model": "decoder", "prior": "bernoulli"}, "elements of Predicted are not independent given tau"),
    "vrnn": ({"model": "vrnn"}, "RecurrentGeneration does not say how likely some elements"),
    "nobody said so": ({"missing": None}, 'where NaN is what is missing, say so: missing="nan"'),
    "another word": ({"missing": "none"}, 'missing must be "nan" or a mask of the shape of x'),
    "another shape": ({"x": X, "missing": GONE[:, :1]}, "missing has shape [120, 1, 2], its data [120, 3, 2]"),
    "other values": ({"x": X, "missing": GONE * 2}, "missing holds other values than true and false"),
    "a mapping": ({"x": X, "missing": {"train": GONE}}, 'missing must be "nan" or a mask of the shape of x'),
    "no mapping": ({"x": {"train": X}, "missing": GONE}, 'missing must be "nan" or a mapping of parts to masks'),
    "of no data": ({"x": {"train": X}, "missing": {"tset": GONE}}, "a mask of tset, of which there are no data"),
    "words": ({"x": X, "missing": [["a"]]}, "missing holds <U1, not numbers"),
    "everything": ({"x": X, "missing": np.ones_like(GONE)}, "nothing of train was observed"),
    "masked array": ({"x": np.ma.MaskedArray(X, GONE), "missing": None}, "give x.data, and missing=x.mask"),
    "of a name": ({"x": "digits", "missing": GONE}, "masks are of data in memory"),
    "of no file": ({"x": "digits", "missing": "nan"}, "missing: unknown setting"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(what: str) -> None:
    words, text = REFUSED[what]
    with pytest.raises(UsageError) as caught:
        fit(**{"x": HOLES, "run_dir": "run"} | words)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("run").exists()


def test_masks_of_files_are_checked(tmp_path: Path) -> None:
    save = functools.partial(np.savez, tmp_path / "data.npz", train=X, test=X)
    for arrays, text in (
        ({"mask": GONE}, "call it train_mask"),
        ({"train_mask": GONE[:5]}, r"train_mask has shape \[5, 3, 2\], its data \[120, 3, 2\]"),
        ({"valid_mask": GONE}, "valid_mask is of no array valid"),
    ):
        save(**arrays)
        with pytest.raises(UsageError, match=text):
            File(tmp_path / "data.npz").load()
