"""`unibound check`: what it finds, what it says of it, and its exit code."""

import json
import textwrap

import pytest

RIGHT = """
import attrs
from unibound import Estimate, Estimator, hookimpl
from unibound.weights import log_mean_exp, vimco_signal


@attrs.frozen
class Right(Estimator):
    \"\"\"VIMCO once more.\"\"\"

    num_particles: int = attrs.field(default=3, validator=attrs.validators.ge(2))

    def __call__(self, joint, x):
        particles = joint.particles(x, self.num_particles)
        log_w = particles.log_weights  # [K, B]
        bound = log_mean_exp(log_w)
        surrogate = -((vimco_signal(log_w.detach()) * particles.log_q).sum(0) + bound)
        return Estimate(surrogate, bound.detach(), log_w.detach(), side="lower")


@hookimpl
def register_estimators(register):
    register("right", Right)
"""
NO_MEAN = RIGHT.replace("log_mean_exp(log_w)", "log_w.logsumexp(0)")
NO_SCORE = RIGHT.replace("(vimco_signal(log_w.detach()) * particles.log_q).sum(0) + bound", "bound")
A_PRIOR = """
import torch
from torch import nn
from unibound import Prior, hookimpl
from unibound.distributions import Bits
from unibound.support import boolean


class Coins(Prior):
    \"\"\"Coins that know their bias.\"\"\"

    support = boolean

    def __init__(self, event_shape):
        super().__init__(event_shape)
        self.logits = nn.Parameter(torch.zeros(event_shape))

    def log_prob(self, tau):
        return Bits(self.logits, len(self.event_shape)).log_prob(tau)

    def sample(self, count):
        return Bits(self.logits, len(self.event_shape)).sample((count,))


@hookimpl
def register_priors(register):
    register("coins", Coins)
"""


def flat(text: str) -> str:
    return " ".join(text.split())


def test_a_module_of_the_built_ins(cli):
    result = cli("check", "unibound_plugins.priors.bernoulli")
    assert result.code == 0, result
    assert "prior bernoulli" in result.out
    assert "held gradient is that of log p" in flat(result.out)
    assert "- base is known" in flat(result.out)  # does not apply
    assert result.out.rstrip().endswith("held, 0 failed")


def test_as_json(cli):
    result = cli("check", "unibound_plugins.likelihoods.bernoulli", "--json")
    document = json.loads(result.out)
    assert document["failed"] == 0
    assert document["verdicts"][0] | {"detail": ""} == {
        "kind": "entry point",
        "name": "likelihoods.bernoulli",
        "law": "loads",
        "held": True,
        "detail": "",
    }
    assert {row["kind"] for row in document["verdicts"]} == {"entry point", "likelihood"}


def test_a_file(cli, tmp_path):
    (tmp_path / "right_one.py").write_text(RIGHT)
    result = cli("check", "right_one.py")
    assert result.code == 0, result
    assert "registers estimator right" in flat(result.out)
    assert "estimator right" in result.out


def test_a_package_that_is_not_installed(cli, tmp_path):
    package = tmp_path / "strangers"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner" / "__init__.py").write_text("")
    (package / "inner" / "coins.py").write_text(A_PRIOR)
    result = cli("check", "strangers")
    assert result.code == 0, result
    assert "strangers.inner.coins" in result.out
    assert "prior coins" in result.out


def test_a_wrong_estimator_is_told_what_is_wrong(cli, tmp_path):
    (tmp_path / "wrong.py").write_text(NO_SCORE)
    result = cli("check", "wrong.py")
    assert result.code == 1, result
    assert "FAILED expected gradient is exact" in flat(result.out)
    assert "the score-function term of the draws is missing" in flat(result.out)


@pytest.mark.slow
def test_a_wrong_bound_is_told_what_is_wrong(cli, tmp_path):
    (tmp_path / "wrong.py").write_text(NO_MEAN)
    result = cli("check", "wrong.py", "--json")
    assert result.code == 1, result
    document = json.loads(result.out)
    failed = {row["law"]: row["detail"] for row in document["verdicts"] if not row["held"]}
    assert len(failed) == document["failed"]
    assert "it is the log of the sum of the weights: the 1/K is missing" in failed["bound_is_on_its_side"]


def test_a_distribution_by_any_spelling(cli, distribution):
    distribution("Some.Coins", "some_coins", A_PRIOR)
    for name in ("Some.Coins", "some-coins", "some_coins"):
        result = cli("check", name)
        assert result.code == 0, result
        assert "registers prior coins" in flat(result.out)


def test_a_plugin_that_does_not_load(cli, distribution):
    distribution("broken", "broken_one", "import nothing_like_this\n")
    result = cli("check", "broken")
    assert result.code == 1, result
    assert "FAILED broken_one" in flat(result.out)
    assert "No module named 'nothing_like_this'; fix it, or pip uninstall broken" in flat(result.out)


def test_a_name_that_is_taken(cli, distribution):
    distribution("copycat", "copycat", RIGHT.replace('"right"', '"vimco"'))
    result = cli("check", "copycat")
    assert result.code == 1, result
    assert "the estimator 'vimco' is that of unibound; choose another name" in flat(result.out)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("numpy", "numpy registers nothing: it has no entry point of group 'unibound'"),
        ("unibund", "did you mean 'unibound'?"),
        ("no_such.module", "there is no distribution, package or file 'no_such.module' with plugins"),
        ("empty.py", "empty.py registers nothing: it has no function marked with @unibound.hookimpl"),
        ("typo.py", "typo.py does not import: SyntaxError"),
        ("needy.py", "needy.py does not import: No module named 'torhc'; install what it needs"),
        ("unibound_plugins.data_sets", "registers nothing that has an exam"),
    ],
)
def test_nothing_to_examine(cli, tmp_path, target, words):
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "typo.py").write_text("def (:")
    (tmp_path / "needy.py").write_text(textwrap.dedent("import torhc"))
    result = cli("check", target)
    assert result.code == 2, result
    assert words in flat(result.err)
