"""RBMs of others: each is read as what it is, or refused by name; exact likelihoods are found by listing."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from running import Cli, refused
from scipy.special import logsumexp

from unibound.testing.verdict import FALSE_ALARM

QUICK = ("--temperatures", 300, "--num-chains", 60, "--raise-cases", 0)
Array = np.ndarray[Any, Any]


def states(size: int) -> Array:
    return (np.arange(2**size)[:, None] >> np.arange(size) & 1).astype(float)


def log_f(v: Array, W: Array, b: Array, c: Array) -> Array:
    return v @ b + np.logaddexp(0, v @ W + c).sum(-1)


def draw(random: np.random.Generator, count: int, W: Array, b: Array, c: Array) -> Array:
    v = states(len(b))
    p = np.exp(log_f(v, W, b, c) - log_f(v, W, b, c).max())
    return v[random.choice(len(v), count, p=p / p.sum())]


def likelihood(x: Array, W: Array, b: Array, c: Array) -> float:
    return log_f(x, W, b, c).mean() - logsumexp(log_f(states(len(b)), W, b, c))


@pytest.fixture
def certify(cli: Cli) -> Callable[..., Any]:
    """`unibound certify` of weights and data, as arrays; what it printed as JSON, or the call where it failed."""

    def call(W: Array, b: Array, c: Array, more: dict[str, Any] | None = None, **data: Array) -> Any:
        arrays: dict[str, Any] = {"W": W, "vbias": b, "hbias": c} | (more or {})
        np.savez("rbm.npz", **arrays)
        np.savez("data.npz", **data)
        result = cli("certify", "--rbm", "rbm.npz", "--data", "data.npz", *QUICK, "--json")
        return json.loads(result.out) if result.code in (0, 1) else result

    return call


def holds(found: dict[str, Any], exact: float) -> bool:
    """Whether a certificate's interval, moved apart to where it misses once in a million, holds the exact value."""
    low, high, middle = found["test_ll_low"], found["test_ll_high"], found["test_ll"]
    scale = FALSE_ALARM / 1.96
    return found["verdict"] == "certified" and middle + scale * (low - middle) < exact < middle + scale * (
        high - middle
    )


def random_rbm(seed: int, visible: int = 10, hidden: int = 8, scale: float = 1.0) -> tuple[Any, Array, Array, Array]:
    random = np.random.default_rng(seed)
    W, b, c = (scale * random.normal(size=shape) for shape in ((visible, hidden), visible, hidden))
    return random, W, b, c


@pytest.mark.parametrize("more", ["ov", "sigma", "beta", "W2", "vbias_vel", "lateral"])
def test_an_array_that_is_not_used_is_refused_by_name(more: str, certify: Callable[..., Any]) -> None:
    random, W, b, c = random_rbm(1)
    refused(certify(W, b, c, {more: np.ones(10)}, test=draw(random, 50, W, b, c)), f"holds {more} besides")


def test_one_hidden_unit(certify: Callable[..., Any]) -> None:
    random, W, b, c = random_rbm(2, hidden=1)
    x = draw(random, 300, W, b, c)
    assert holds(certify(W, b, c, test=x), likelihood(x, W, b, c))


@pytest.mark.parametrize(("visible", "hidden"), [(1, 5), (1, 1), (2, 1)])
def test_one_unit_on_either_side(visible: int, hidden: int, certify: Callable[..., Any]) -> None:
    random, W, b, c = random_rbm(3, visible, hidden)
    x = draw(random, 300, W, b, c)
    assert holds(certify(W, b, c, test=x), likelihood(x, W, b, c))


@pytest.mark.parametrize("shape", [(-1, 1), (1, -1)])
def test_biases_may_be_rows_or_columns(shape: tuple[int, int], certify: Callable[..., Any]) -> None:
    random, W, b, c = random_rbm(4)
    x = draw(random, 300, W, b, c)
    assert holds(certify(W, b.reshape(shape), c.reshape(shape), test=x), likelihood(x, W, b, c))


def square(seed: int) -> tuple[Any, Array, Array, Array]:
    random = np.random.default_rng(seed)
    W = 0.4 + 0.7 * random.normal(size=(10, 10))
    b, c = (-W.sum(axis) / 2 + 0.5 * random.normal(size=10) for axis in (1, 0))
    return random, W, b, c


@pytest.mark.parametrize("seed", [4, 9, 10])
def test_a_square_matrix_is_tried_the_other_way_round(seed: int, certify: Callable[..., Any]) -> None:
    random, W, b, c = square(seed)
    x, train = np.split(draw(random, 800, W, b, c), 2)
    assert holds(certify(W, b, c, test=x, train=train), likelihood(x, W, b, c))
    found = certify(W.T, b, c, test=x, train=train)
    assert likelihood(x, W, b, c) > likelihood(x, W.T, b, c) + 0.2
    assert found["verdict"] == "refused"
    assert "a transposed W" in found["reasons"][0]


def test_biases_that_changed_places_are_tried_too(certify: Callable[..., Any]) -> None:
    random, W, b, c = random_rbm(5, 9, 9, 1.5)
    x = draw(random, 400, W, b, c)
    found = certify(W, c, b, test=x)
    assert found["verdict"] == "refused"
    assert "exchanged biases" in found["reasons"][0]


@pytest.mark.parametrize("seed", [6, 7, 8])
def test_data_that_are_merely_strange_to_a_square_matrix_are_not_refused(
    seed: int, certify: Callable[..., Any]
) -> None:
    random, W, b, c = random_rbm(seed, 9, 9, 0.7)
    x = (random.random((300, 9)) < 0.1).astype(float)
    assert holds(certify(W, b, c, test=x), likelihood(x, W, b, c))


def spins(seed: int) -> tuple[Array, Array, Array, Array, float]:
    """Weights of spins, spins drawn from them, and their exact likelihood."""
    random, J, h, g = random_rbm(seed, scale=0.4)
    s = 2 * states(10) - 1
    every = s @ h + np.logaddexp(s @ J + g, -(s @ J + g)).sum(1)
    log_p = every - logsumexp(every)
    chosen = random.choice(len(s), 600, p=np.exp(log_p))
    return s[chosen], J, h, g, log_p[chosen].mean()


def test_spins_name_the_conversion_and_it_is_right(certify: Callable[..., Any]) -> None:
    s, J, h, g, exact = spins(9)
    failed = certify(J, h, g, test=s)
    refused(failed, "4 W, 2 (vbias - W 1) and 2 (hbias - W' 1)")
    converted = 4 * J, 2 * (h - J.sum(1)), 2 * (g - J.sum(0))
    assert holds(certify(*converted, test=(1 + s) / 2), exact)


def test_bits_under_weights_of_spins_are_found_out(certify: Callable[..., Any]) -> None:
    s, J, h, g, exact = spins(9)
    assert likelihood((1 + s) / 2, J, h, g) < exact - 0.5
    found = certify(J, h, g, test=(1 + s) / 2)
    assert found["verdict"] == "refused"
    assert "weights of spins" in found["reasons"][0]


NO_BITS = {
    "reals": lambda random: random.normal(size=(40, 10)),
    "counts": lambda random: random.poisson(2, (40, 10)),
    "probabilities": lambda random: random.random((40, 10)),
    "spins among bits": lambda random: random.integers(-1, 2, (40, 10)),
}


@pytest.mark.parametrize("kind", NO_BITS)
def test_no_cure_bends_what_are_no_bits(kind: str, certify: Callable[..., Any]) -> None:
    random, W, b, c = random_rbm(9)
    failed = certify(W, b, c, test=NO_BITS[kind](random))
    refused(failed, "zeros and ones")
    assert not any(word in failed.err for word in ("threshold", "sampl", "binariz", "round"))


def test_few_data_that_repeat_or_are_those_of_training_get_theirs_too(certify: Callable[..., Any]) -> None:
    random, W, b, c = random_rbm(10, 14, 6)
    x = draw(random, 4, W, b, c)
    for data in ({"test": x[[0, 0, 0, 0]]}, {"test": x, "train": x}, {"test": x[:2], "train": x}):
        assert holds(certify(W, b, c, **data), likelihood(data["test"], W, b, c))


def test_few_data_get_their_interval(certify: Callable[..., Any]) -> None:
    random, W, b, c = random_rbm(10, 14, 6)
    for count in (1, 3):
        x = draw(random, count, W, b, c)
        assert holds(certify(W, b, c, test=x), likelihood(x, W, b, c))


@pytest.mark.parametrize("scale", [0.0, 0.01, 0.3])
def test_a_weak_model_gets_its_interval_and_a_warning(scale: float, certify: Callable[..., Any]) -> None:
    random, W, b, c = random_rbm(11, 16, 8, scale)
    x = (random.random((300, 16)) < 0.1).astype(float)
    found = certify(W, b, c, test=x)
    assert holds(found, likelihood(x, W, b, c))
    assert any("independent pixels" in warning for warning in found["warnings"])


@pytest.mark.parametrize("largest", [1e5, 1e6, 1e8])
@pytest.mark.parametrize("sign", [-1, 1])
def test_biases_that_float32_cannot_hold(largest: float, sign: int, certify: Callable[..., Any]) -> None:
    random, W, b, c = random_rbm(12, 8, 5)
    b[:3] += sign * largest  # three bits that never vary, and a hidden unit that undoes one of them
    W[0, 0], c[0] = -sign * largest, 0.3
    x = draw(random, 200, W, b, c)
    assert holds(certify(W, b, c, test=x), likelihood(x, W, b, c))


@pytest.mark.parametrize("largest", [1e15, 1e300])
def test_biases_that_nothing_can_hold_are_refused(largest: float, certify: Callable[..., Any]) -> None:
    _, W, b, c = random_rbm(13)
    refused(certify(W, b + largest, c, test=np.ones((9, 10))), "vbias holds values too large")


@pytest.mark.parametrize(
    ("W", "words"),
    [
        (np.ones((10, 8)) * 1j, "W holds complex128"),
        (np.full((10, 8), "0.1"), "W holds <U3"),
        (np.ones((10, 8), bool), "W holds bool"),
        (np.full((10, 8), -np.inf), "W holds values that overflowed"),
        (np.ones((8, 10)), "transpose W"),
        (np.ones((10, 8, 1)), "do not fit"),
        (np.ones((0, 8)), "do not fit"),
    ],
)
def test_weights_that_are_no_matrix_of_reals(W: Array, words: str, certify: Callable[..., Any]) -> None:
    refused(certify(W, np.zeros(10), np.zeros(8), test=np.ones((9, 10))), words)


@pytest.mark.parametrize("name", ["vbias", "hbias"])
def test_so_of_biases(name: str, certify: Callable[..., Any]) -> None:
    bias = {"vbias": np.zeros(10), "hbias": np.zeros(8)}
    bias[name] = bias[name] + 1j
    refused(certify(np.ones((10, 8)), *bias.values(), test=np.ones((9, 10))), f"{name} holds complex128")
