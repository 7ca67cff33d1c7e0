"""The far end of a likelihood: an end of an interval is never inferred from the absence of surprises."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from running import Cli
from torch import Tensor

from unibound import JointBound, Run, UsageError, registries
from unibound.draws import Drawn
from unibound.evaluation.certify import certify_joint
from unibound.evaluation.evaluate import evaluate
from unibound.evaluation.independence import independent
from unibound.evaluation.memory import bytes_per_particle
from unibound.evaluation.reach import reach
from unibound.networks import Inference
from unibound.runs.result import Result
from unibound.support import boolean, integer_interval, levels, real

SLOW = pytest.mark.slow
QUICK = {"num_particles": 1000, "num_chains": 50, "temperatures": 200, "raise_cases": 0}


def bits_of(count: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=count)))


def scattered(seed: int, prior: str = "rbm") -> tuple[JointBound, Tensor, float]:
    """An mlp whose every weight is drawn, 300 data of its own, and their exact mean log-likelihood."""
    torch.manual_seed(seed)
    known, states = registries(), bits_of(6)
    made = known["prior"][prior]((6,), **({"num_hidden": 8} if prior == "rbm" else {}))
    plain = known["likelihood"]["bernoulli"]()
    model = known["model"]["mlp"](num_latents=6, hidden=(10,), dropout=0.0)
    joint = model.build(made, plain, plain, bits_of(8).mean(0)).eval()
    with torch.no_grad():
        for module, scale in ((joint.q, 0.8), (joint.p.get_submodule("generator"), 2.0), (made, 0.7)):
            for parameter in module.parameters():
                parameter.copy_(scale * torch.randn_like(parameter))
        weights = made.log_prob(states).softmax(0)
        x = joint.p.conditional(states[torch.multinomial(weights, 300, replacement=True)]).sample()
        every = states.unsqueeze(1).expand(-1, len(x), -1)
        log_p = joint.p.log_joint(x, every).double().logsumexp(0) - made.log_prob(states).double().logsumexp(0)
    return joint, x, log_p.mean().item()


@pytest.mark.parametrize(("seed", "prior"), [pytest.param(5, "rbm", marks=SLOW), (1, "rbm"), (5, "bernoulli")])
@pytest.mark.parametrize("posterior", ["draws", pytest.param("ais", marks=SLOW)])
def test_a_q_that_is_off_does_not_make_a_certificate_wrong(seed: int, prior: str, posterior: str) -> None:
    joint, x, exact = scattered(seed, prior)
    found = certify_joint(joint, x, x, posterior=posterior, **QUICK)
    assert found.verdict == "certified"
    assert found.test_ll < exact - 0.3  # q is off indeed
    assert found.test_ll_high is not None
    assert found.test_ll_low < exact < found.test_ll_high < exact + 1


def test_another_lower_bound_above_the_upper_end_opens_it(monkeypatch: pytest.MonkeyPatch) -> None:
    joint, x, _ = scattered(5)
    from unibound.evaluation.certify import checks

    monkeypatch.setattr(checks, "conservative", lambda *given: torch.zeros(300, dtype=torch.float64))
    found = certify_joint(joint, x, x, posterior="draws", **QUICK)
    assert found.test_ll_high is None
    assert any("no upper end: CSL, which errs low, lies" in reason for reason in found.reasons)


def test_what_cannot_be_reached_leaves_the_end_open() -> None:
    """Many latents, a q that is sure of the wrong ones: no draw finds their posteriors, and dreams tell so."""
    torch.manual_seed(0)
    known = registries()
    plain, prior = known["likelihood"]["bernoulli"](), known["prior"]["bernoulli"]((40,))
    joint = known["model"]["mlp"](num_latents=40, hidden=(10,), dropout=0.0).build(
        prior, plain, plain, torch.full((60,), 0.5)
    )
    with torch.no_grad():
        for module, scale in ((joint.q, 2.0), (joint.p.get_submodule("generator"), 2.0)):
            for parameter in module.parameters():
                parameter.copy_(scale * torch.randn_like(parameter))
        x, _ = joint.p.dream(100)
    found = evaluate(joint, x, num_particles=200)
    assert found.interval.low is None
    assert "no lower end: " in found.conclusion
    assert found.no_lower_end is not None


@pytest.mark.parametrize("at_once", [1, 2, 3, 7, 1000])
def test_the_gap_does_not_depend_on_how_memory_was_split(at_once: int, mlp: Callable, bits: Tensor) -> None:
    joint, bits = mlp(bits, "bernoulli"), bits[:20]
    memory = at_once * bytes_per_particle(joint, bits[:1])
    found = evaluate(joint, bits, num_particles=101, max_memory=memory, posterior="none")
    assert found.gap == pytest.approx(0.0, abs=0.1)
    assert found.ess > 1


def test_halves_are_those_of_all_particles_however_these_were_split(mlp: Callable, bits: Tensor) -> None:
    from unibound.evaluation.tally import Tally

    log_w, tau = torch.randn(9, len(bits), dtype=torch.float64), torch.zeros(9, len(bits), 1)
    found = []
    for sizes in ([9], [1] * 9, [3, 3, 3], [2, 7], [5, 1, 3]):
        tally = Tally(None, 9)
        tally.begin(bits)
        for part, weights in zip(tau.split(sizes), log_w.split(sizes), strict=True):
            tally.add(part, weights)
        found.append(tally.close())
    assert all(torch.allclose(one, found[0], atol=1e-12, rtol=0) for one in found)


def test_a_diverged_model_is_said_to_be_worse_than_independence(mlp: Callable, bits: Tensor) -> None:
    joint = mlp(bits, "bernoulli")
    with torch.no_grad():
        for parameter in joint.p.get_submodule("generator").parameters():
            parameter.mul_(1000.0)
    found = evaluate(joint, bits, num_particles=50)
    assert found.nll > 100 > found.independent
    assert found.independent == pytest.approx(6 * math.log(2), abs=0.1)
    assert "is worse than independent elements with these data's own rates" in found.conclusion
    certificate = certify_joint(joint, bits, bits, num_particles=50, posterior="draws")
    assert any("independent pixels" in warning for warning in certificate.warnings)


def test_a_poor_bound_is_not_taken_for_a_poor_model() -> None:
    joint, x, exact = scattered(5)
    with torch.no_grad():
        for parameter in joint.q.parameters():
            parameter.mul_(3.0)
    found = certify_joint(joint, x, x, posterior="draws", **QUICK)
    base = next(row.value for row in found.evidence if row.name == "base rates")
    assert found.test_ll < base < exact
    assert found.verdict == "certified"
    assert any("of the model that says nothing" in warning for warning in found.warnings)


def test_so_it_is_in_words_of_an_evaluation() -> None:
    joint, x, exact = scattered(5)
    base = -independent(x, boolean)
    assert base < exact  # the model is better than independent elements
    for factor in (0.0, 3.0):  # a q that says nothing, and one that is sure of what is not so
        with torch.no_grad():
            for parameter in joint.q.parameters():
                parameter.mul_(factor or 1.0)
        found = evaluate(joint, x, num_particles=2)
        assert "the model is worse" not in found.conclusion
        assert ("the bound is worse" in found.conclusion) is (-found.nll < base)
    assert -found.nll < base


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_levels_are_counted_however_they_are_rounded(dtype: torch.dtype) -> None:
    """Half of 256 levels are the next float32 where they are multiplied by 1 / 255, as a GPU does to divide."""
    steps = torch.randint(256, (60, 5))
    exactly = steps.double() / 255
    multiplied = (steps.float() * (1 / torch.tensor(255.0))).to(dtype)
    assert (multiplied != exactly.to(dtype)).any()
    assert independent(multiplied, levels(256)) == independent(exactly, levels(256))


def test_independence_is_judged_by_the_other_data() -> None:
    x = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    by_hand = -(3 * math.log(3 / 4) + 2 * math.log(2 / 4) + math.log(1 / 4)) / 3
    assert independent(x, boolean) == pytest.approx(by_hand)
    assert independent(x, integer_interval(0, 2)) == pytest.approx(by_hand + 2 * math.log(5 / 4))
    assert independent(x, real) is None
    coins = (torch.rand(5, 1000) < 0.5).float()  # five data do not flatter themselves
    assert independent(coins, boolean) > 1000 * math.log(2)


class OneTerm(Drawn):
    partial = True
    support = boolean

    def __init__(self, size: torch.Size) -> None:
        super().__init__(size, torch.Size([4]), validate_args=False)

    def draw(self, count: int, *, reparameterized: bool) -> tuple[Tensor, Tensor]:
        return torch.zeros(count, *self.batch_shape, 4), torch.zeros(count, *self.batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return value.sum(-1)


def test_a_partial_draw_has_no_such_check_and_says_so(mlp: Callable, bits: Tensor) -> None:
    class Partly(Inference):
        def forward(self, x: Tensor) -> OneTerm:
            return OneTerm(x.shape[:-1])

    joint = mlp(bits, "bernoulli")
    partly = JointBound(Partly(), joint.p)
    found = reach(partly, bits, torch.zeros(len(bits)), 10, 1000, "draws")
    assert isinstance(found, str)
    assert "one term" in found


def test_a_point_mass_needs_none(bits: Tensor) -> None:
    known = registries()
    plain = known["likelihood"]["bernoulli"]()
    joint = known["model"]["identity"]().build(known["prior"]["bernoulli"]((6,)), plain, plain, bits.mean(0))
    found = evaluate(joint, bits, num_particles=1, posterior="ais")
    assert found.no_lower_end is None
    assert found.interval.two_sided


@pytest.mark.parametrize("posterior", ["draws", "ais", "none"])
def test_the_command_line_says_what_was_looked_at(posterior: str, npz: Callable, run: Callable, cli: Cli, bits: Tensor):
    run(npz(bits.numpy()), prior="bernoulli", model__num_latents=3)
    said = cli("evaluate", "run", "--posterior", posterior, "--json")
    document = json.loads(said.out)
    assert (document["nll_low"] is None) is (posterior == "none")
    assert (document["estimates"][0]["reach"] is None) is (posterior == "none")
    assert ("annealed from" in document["conclusion"]) is (posterior == "ais")
    assert cli("evaluate", "run", "--posterior", "guess").code == 2
    assert cli("certify", "run", "--posterior", "guess").code == 2


def no_constant(name: str) -> None:
    pytest.fail(f"{name} is no JSON")


@pytest.mark.parametrize("value", [-1e30, 1e30, math.inf])
def test_json_is_valid_whatever_happened(value: float, npz: Callable, run: Callable, cli: Cli, bits: Tensor) -> None:
    run(npz(bits.numpy()), prior="bernoulli", model__num_latents=3)
    from safetensors.torch import load_file, save_file

    for path in Path("run/checkpoints").rglob("*.safetensors"):
        weights = load_file(path)
        name = next(name for name in weights if "generator" in name)
        save_file(weights | {name: torch.full_like(weights[name], value)}, path)
    for command in ("evaluate", "certify"):
        said = cli(command, "run", "--json")
        assert "Traceback" not in said.err
        if said.out.strip():
            json.loads(said.out, parse_constant=no_constant)
        else:
            assert said.code != 0


def test_a_result_whose_nll_is_no_number_is_none(npz: Callable, run: Callable, bits: Tensor) -> None:
    run(npz(bits.numpy()), prior="bernoulli", model__num_latents=3)
    path = Path("run/evaluation.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"nll": None}))
    Path("run/SHA256SUMS").unlink()  # as of a version that kept no digests
    with pytest.raises(UsageError, match=r"not finite.*remove it"):
        Result.read(Path("run"))
    path.unlink()
    assert Run.open("run").finish().rows
