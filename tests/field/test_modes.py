"""Whoever only looks leaves every module in the mode it was in, and training as it was going to be."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unibound import JointBound, UsageError, registries
from unibound.evaluation.certify import certify_joint
from unibound.evaluation.diagnose import diagnose
from unibound.evaluation.evaluate import draw_codes, evaluate, evaluate_all, normalize
from unibound.runs import pictures
from unibound.runs.watch import watch


def looks(joint: JointBound, x: Tensor) -> dict[str, Callable[[], object]]:
    known = registries()
    exact, vimco = known["partition_estimator"]["exact"](), known["estimator"]["vimco"](num_particles=2)
    return {
        "evaluate": lambda: evaluate(joint, x, num_particles=3),
        "evaluate_all": lambda: evaluate_all(joint, x, [normalize(joint, exact, x)], num_particles=3),
        "normalize": lambda: normalize(joint, known["partition_estimator"]["bdmc"](num_temperatures=5), x),
        "draw_codes": lambda: draw_codes(joint, x),
        "diagnose": lambda: diagnose(joint, vimco, x, num_particles=4, repeats=2),
        "samples": lambda: pictures.samples(joint, 3),
        "chain": lambda: pictures.chain(joint, 3),
        "reconstructions": lambda: pictures.reconstructions(joint, x),
        "watch": lambda: watch(joint, x, evaluate(joint, x, num_particles=3), seed=0),
        "certify_joint": lambda: certify_joint(
            joint, x, x, num_particles=3, num_chains=5, temperatures=5, num_steps=2, raise_cases=2
        ),
        "check": lambda: joint.check(x),
    }


LOOKS = [
    *("evaluate", "evaluate_all", "normalize", "draw_codes", "diagnose", "samples", "chain", "reconstructions"),
    *("watch", "certify_joint", "check"),
]


@pytest.mark.parametrize("name", LOOKS)
@pytest.mark.parametrize("mode", ["training", "evaluation", "mixed"])
def test_every_module_keeps_its_mode(name: str, mode: str, mlp: Callable, bits: Tensor) -> None:
    joint = mlp(bits[:20])
    joint.train(mode != "evaluation")
    if mode == "mixed":  # frozen dropout in q, and a prior in evaluation under a p that trains
        for index, module in enumerate(joint.modules()):
            module.training = index % 3 != 1
    before = [module.training for module in joint.modules()]
    weights = copy.deepcopy(dict(joint.named_parameters()))
    looks(joint, bits[:20])[name]()
    assert [module.training for module in joint.modules()] == before
    assert all(torch.equal(value, weights[key]) for key, value in joint.named_parameters())
    assert all(parameter.grad is None for parameter in joint.parameters())


@pytest.mark.parametrize("name", ["evaluate", "diagnose", "certify_joint", "check"])
def test_so_it_does_where_looking_fails(name: str, mlp: Callable, bits: Tensor) -> None:
    joint = mlp(bits[:20])
    joint.q.eval()
    before = [module.training for module in joint.modules()]
    with pytest.raises(UsageError):
        looks(joint, bits[:20] + 1)[name]()
    assert [module.training for module in joint.modules()] == before


def test_validation_changes_nothing_about_training(bits: Tensor) -> None:
    def train(validate: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        known = registries()
        plain, prior = known["likelihood"]["bernoulli"](), known["prior"]["rbm"]((4,), num_hidden=3)
        model = known["model"]["mlp"](num_latents=4, hidden=(8,), dropout=0.3)
        joint = model.build(prior, plain, plain, bits.mean(0))
        vimco, optimizer = known["estimator"]["vimco"](num_particles=3), torch.optim.Adam(joint.parameters(), 1e-2)
        for batch in bits.split(50):
            joint.advance()
            optimizer.zero_grad()
            vimco(joint, batch).surrogate.mean().backward()
            optimizer.step()
            if validate:
                with torch.random.fork_rng():
                    for look in looks(joint, bits[:20]).values():
                        look()
        return {name: value for name, value in joint.state_dict().items() if not name.endswith("base_bias")}

    quiet, watched = train(False), train(True)
    assert all(torch.equal(value, watched[name]) for name, value in quiet.items())
