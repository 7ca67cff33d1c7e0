"""What `unibound run` does, as a call: the same numbers, whatever the data and the networks come as."""

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.utils.data import TensorDataset

import unibound
from unibound import Directed, Generator, Inference, UsageError
from unibound.data.splits import PARTS
from unibound.distributions import Bits
from unibound.front.arrays import splits_of

RNG = np.random.default_rng(0)
X = ((RNG.random((4, 3, 2)) < 0.5)[RNG.integers(0, 4, 120)] ^ (RNG.random((120, 3, 2)) < 0.1)).astype(np.uint8)
SPLITS = {"train": X[:80], "valid": X[80:100], "test": X[100:]}
SMALL = {
    "model": {"name": "mlp", "num_latents": 4, "hidden": [8]},
    "prior": {"name": "rbm", "num_hidden": 3, "num_chains": 5},
    "partition": {"name": "ais", "num_chains": 4, "num_temperatures": 5},
    "estimator": "rws",
    "epochs": 2,
    "num_particles": 5,
    "progress": False,
}
PLAIN = SMALL | {"prior": "bernoulli"}
del PLAIN["partition"]


def fit(x: object = X, **words: object) -> unibound.Trained:
    return unibound.fit(x, **(SMALL | words))  # pyright: ignore[reportArgumentType]


def same(one: unibound.Trained, other: unibound.Trained) -> bool:
    weights, others = one.joint.state_dict(), other.joint.state_dict()
    return all(torch.equal(weights[name], others[name]) for name in weights | others)


def test_it_gives_the_numbers_of_the_command_line(cli: Callable) -> None:
    few = {name: x[:20] for name, x in SPLITS.items()}
    np.savez("data.npz", **few)
    words = (
        "run --model mlp --model.num-latents 4 --model.hidden 8 --prior rbm --prior.num-hidden 3 --prior.num-chains 5 "
        "--partition.num-chains 4 --partition.num-temperatures 5 --estimator rws --epochs 2 --num-particles 5 --json "
        "--data data.npz --run-dir typed"
    )
    typed = json.loads(cli(*words.split()).out)
    called, read = fit(few), fit("data.npz", run_dir="called")
    assert same(called, unibound.load("typed"))
    for model in (called, read):
        own = model.result.document
        assert {key: own[key] for key in own if key not in ("seconds", "run_dir")} == {
            key: typed[key] for key in own if key not in ("seconds", "run_dir")
        }
    assert Path("called/evaluation.json").exists()
    evaluated = json.loads(cli("evaluate", "typed", "--json").out)
    assert called.evaluate().nll == evaluated["nll"]
    assert called.evaluate(few["test"]).nll == pytest.approx(evaluated["nll"], abs=1e-9)


KINDS: dict[str, Callable[[np.ndarray], object]] = {
    "floats": lambda x: x.astype(np.float64),
    "booleans": lambda x: x.astype(bool),
    "fortran order": np.asfortranarray,
    "tensor": torch.from_numpy,
    "with a gradient": lambda x: torch.from_numpy(x).float().requires_grad_(),
    "lists": lambda x: x.tolist(),
    "data set": lambda x: TensorDataset(torch.from_numpy(x)),
    "pairs": lambda x: TensorDataset(torch.from_numpy(x), torch.arange(len(x))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_data_of_any_kind_are_the_same_data(kind: str) -> None:
    made, plain = splits_of(KINDS[kind](X)), splits_of(X)
    assert made.digest() == plain.digest()
    assert [len(made.rows(name)) for name in PARTS] == [98, 10, 12]


def test_what_is_held_out_is_spread_over_sorted_data() -> None:
    made = splits_of(np.stack([np.arange(100), np.zeros(100)], 1))
    for name in ("valid", "test"):
        part = getattr(made, name)[:, 0]
        assert part.min() < 15
        assert part.max() > 85
    together = torch.cat([getattr(made, name)[:, 0] for name in PARTS])
    assert together.sort().values.tolist() == list(range(100))


def test_levels_are_said_or_seen() -> None:
    grey = RNG.integers(0, 16, (30, 4))
    assert splits_of(grey, levels=16).support.upper_bound == 15  # pyright: ignore
    bytes_ = np.concatenate([grey * 17, np.full((2, 4), [0, 255, 0, 255])]).astype(np.uint8)
    assert splits_of(bytes_).support.upper_bound == 255  # pyright: ignore


class Encoder(Inference):
    """q(tau | x) of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Distribution:
        return Bits(self.layer(x.flatten(-2)))


class Decoder(Generator):
    """p(x | tau) of one's own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)

    def forward(self, tau: Tensor) -> Distribution:
        return Bits(self.layer(tau).unflatten(-1, (3, 2)), event_dims=2)


def own() -> tuple[Inference, Directed]:
    torch.manual_seed(0)
    return Encoder(), Directed(unibound.registries()["prior"]["bernoulli"]((4,)), Decoder())


def test_networks_of_ones_own() -> None:
    q, p = own()
    words = {key: value for key, value in PLAIN.items() if key not in ("model", "prior")}
    model = unibound.fit(SPLITS, q=q, p=p, **words | {"epochs": 40})  # pyright: ignore[reportArgumentType]
    assert model.joint.q is q
    assert model.result.nll < 6 * math.log(2)
    assert "given" in (model.run.path / "resolved.toml").read_text()
    model.save("kept")
    with pytest.raises(UsageError, match=r"unibound\.load"):
        unibound.load("kept")
    again = unibound.load("kept", joint=unibound.JointBound(*own()))
    assert same(model, again)
    assert again.score(X[:3]).tolist() == model.score(X[:3]).tolist()


def test_plugins_come_as_names_classes_records_tables_and_modules() -> None:
    known = unibound.registries()
    vimco, rbm = known["estimator"]["vimco"], known["prior"]["rbm"]
    torch.manual_seed(0)
    by_name = fit(epochs=1, estimator={"name": "vimco", "num_particles": 3})
    for estimator in (vimco(num_particles=3), functools.partial(vimco, num_particles=3)):
        assert same(by_name, fit(epochs=1, estimator=estimator))
    assert same(by_name, fit(epochs=1, estimator="vimco", estimator__num_particles=3))
    made = fit(epochs=1, prior=rbm((4,), num_hidden=2))
    assert made.joint.p.prior.hidden_bias.shape == (2,)  # pyright: ignore
    assert math.isfinite(made.result.nll)


def test_callbacks_hear_every_epoch() -> None:
    heard: list[int] = []
    fit(epochs=3, callbacks=[lambda progress: heard.append(progress.done)])
    assert heard == [1, 2, 3]


def test_a_loop_of_ones_own_is_that_of_fit() -> None:
    model = fit(SPLITS)
    run = unibound.Run.create("mine", model.run.settings, data=splits_of(SPLITS))
    assert [progress.done for progress in run.train()] == [1, 2]
    assert same(model, unibound.Trained(run))
    assert run.finish().nll == model.result.nll


def test_a_temporary_folder_goes_with_its_model() -> None:
    model = fit(epochs=1)
    path = model.run.path
    assert path.exists()
    kept = model.save("kept")
    del model
    assert not path.exists()
    assert unibound.load(kept).sample(2).shape == (2, 3, 2)


def test_global_random_numbers_are_those_of_a_seed_and_gradients_stay_on() -> None:
    before = torch.get_default_dtype(), torch.is_grad_enabled()
    fit(epochs=1)
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == before
