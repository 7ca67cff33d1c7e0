"""A training step of the paper's model, and of layers of bits, against the same mathematics written out by hand.

Sizes of Hu and Salakhutdinov (2018): 784-200-200-100-100-200 with ELU, an RBM of 200 x 400, 100 chains.
Layers are 784-200-200, with independent bits on top or an RBM of 200 x 200, 100 chains moved five steps.
"""

import hand
import pytest
import torch

from unibound import registries
from unibound.runs.train import Training
from unibound.settings.records import Optimizer, Stage
from unibound.testing.by_hand import VimcoRBM

WIDTHS, NUM_HIDDEN, NUM_CHAINS, BATCH = [784, 200, 200, 100, 100, 200], 400, 100, 100
LAYERS = (200, 200)
MACHINE = {"num_hidden": 200, "steps": 5, "num_chains": NUM_CHAINS}


@pytest.mark.parametrize("gibbs_steps", [1, 25])
@pytest.mark.parametrize("num_particles", [10])
def bench_vimco_rbm(race, num_particles, gibbs_steps):
    x = (torch.rand(BATCH, 784) < 0.13).float()
    torch.manual_seed(0)
    hand = VimcoRBM(WIDTHS, NUM_HIDDEN, num_particles, gibbs_steps, NUM_CHAINS)
    ours, estimator = make_training(x, num_particles, gibbs_steps)
    race({"hand": lambda: hand.step(x), "unibound": lambda: ours.step(estimator, x)})


def make_training(x, num_particles, gibbs_steps):
    """The same model from the registry."""
    plugins = registries()
    model = plugins["model"]["mlp"](num_latents=WIDTHS[-1], hidden=tuple(WIDTHS[1:-1]), dropout=0.0)
    prior = plugins["prior"]["rbm"]((WIDTHS[-1],), num_hidden=NUM_HIDDEN, num_chains=NUM_CHAINS, steps=gibbs_steps)
    bernoulli = plugins["likelihood"]["bernoulli"]()
    joint = model.build(prior, bernoulli, bernoulli, x.mean(0))
    stage = Stage(optimizer=Optimizer(learning_rate=1e-3))
    return Training(joint, [stage], x, batch_size=len(x)), plugins["estimator"]["vimco"](num_particles=num_particles)


@pytest.mark.parametrize(("name", "prior"), [("sbn", "bernoulli"), ("dbn", "rbm")])
def bench_layers(race, name, prior):
    x = (torch.rand(BATCH, 784) < 0.13).float()
    torch.manual_seed(0)
    sizes = [784, *LAYERS]
    theirs = hand.Sbn(sizes, 10) if name == "sbn" else hand.Dbn(sizes, 10, *MACHINE.values())
    theirs.prepare()
    plugins = registries()
    top = plugins["prior"][prior]((LAYERS[-1],), **(MACHINE if name == "dbn" else {}))
    bernoulli = plugins["likelihood"]["bernoulli"]()
    joint = plugins["model"]["sbn"](sizes=LAYERS).build(top, bernoulli, bernoulli, x.mean(0))
    training = Training(joint, [Stage(optimizer=Optimizer(learning_rate=1e-3))], x, batch_size=len(x))
    vimco = plugins["estimator"]["vimco"](num_particles=10)
    race({"hand": lambda: theirs.step(x), name: lambda: training.step(vimco, x)}, targets={name: 1.15})
