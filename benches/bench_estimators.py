"""A training step of each estimator against the same mathematics written out by hand, and how noisy its gradient is.

Networks of Hu and Salakhutdinov (2018): 784-200-200-100-100-200 with ELU; the RBM is 200 x 400, with 100 chains moved
five steps. Beside the ratio stands the exact variance of the gradient, by group, in one fixed world of two latent bits
(one latent real for those that reparameterize), with two particles. What draws otherwise than by q and p has none.
"""

from collections.abc import Callable

import attrs
import hand
import pytest
import torch

from unibound import Directed, JointBound, UsageError, registries
from unibound.runs.train import Training
from unibound.settings.defaults import likelihood_over
from unibound.settings.records import Choice, Optimizer, Stage
from unibound.testing import World, variance
from unibound.testing.by_hand import VimcoRBM
from unibound.testing.listing import all_bits, parameter_groups
from unibound.testing.networks import BitGenerator, BitInference
from unibound.testing.priors import Table

WIDTHS, NUM_HIDDEN, NUM_CHAINS, STEPS, BATCH = [784, 200, 200, 100, 100, 200], 400, 100, 5, 100
DRAWS_OTHERWISE = {"autoencoder", "cd"}  # by noise on codes, or by a Gibbs chain
DENOISER = [784, 200, 784]
DEEP = (WIDTHS, NUM_HIDDEN, 10, STEPS, NUM_CHAINS)


@attrs.frozen
class Row:
    """One estimator, what it is raced against, and in what model.

    Args:
        by_hand: makes the loop written out by hand.
        prior, model: names.
        num_particles: K of the estimator, in training; its default if None.
    """

    by_hand: Callable[[], hand.Loop | VimcoRBM]
    prior: str
    model: str = "mlp"
    num_particles: int | None = 10


ROWS = {
    "autoencoder": Row(lambda: hand.Autoencoder(*DEEP), "rbm", num_particles=None),
    "cd": Row(lambda: hand.CD(WIDTHS[0], NUM_HIDDEN, 1, NUM_CHAINS), "rbm", "identity", None),
    "contrastive_rws": Row(lambda: hand.ContrastiveRws(*DEEP), "rbm"),
    "dae": Row(lambda: hand.Dae(DENOISER), "convolved", "denoising", None),
    "iwae": Row(lambda: hand.Iwae(WIDTHS, 10), "gaussian"),
    "nvil": Row(lambda: hand.Nvil(*DEEP), "rbm"),
    "renyi": Row(lambda: hand.Iwae(WIDTHS, 10), "gaussian"),  # one power more than this
    "rws": Row(lambda: hand.Rws(*DEEP), "rbm"),
    "sgvb": Row(lambda: hand.Sgvb(WIDTHS, 1), "gaussian", num_particles=1),
    "vimco": Row(lambda: VimcoRBM(*DEEP), "rbm"),
    "wake_sleep": Row(lambda: hand.WakeSleep(*DEEP), "rbm"),
}


@pytest.mark.parametrize("name", ROWS)
def bench_estimator(race, benchmark, name):
    row = ROWS[name]
    x = (torch.rand(BATCH, 784) < 0.13).float()
    torch.manual_seed(0)
    theirs = row.by_hand()
    if isinstance(theirs, hand.Loop):
        theirs.prepare()
    training, estimator = make_training(name, row, x)
    race({"hand": lambda: theirs.step(x), name: lambda: training.step(estimator, x)})
    benchmark.extra_info["variance"] = noise = variances(name)
    print("  ".join(f"variance of {group} {value:.3g}" for group, value in noise.items()))


def make_training(name: str, row: Row, x: torch.Tensor):
    """The same from the registry."""
    plugins = registries()
    estimator = plugins["estimator"][name](**{} if row.num_particles is None else {"num_particles": row.num_particles})
    models = {
        "mlp": {"num_latents": WIDTHS[-1], "hidden": tuple(WIDTHS[1:-1]), "dropout": 0.0},
        "denoising": {"hidden": tuple(DENOISER[1:-1])},
        "identity": {},
    }
    model = plugins["model"][row.model](**models[row.model])
    settings = {"num_hidden": NUM_HIDDEN, "num_chains": NUM_CHAINS, "steps": STEPS} if row.prior == "rbm" else {}
    prior = plugins["prior"][row.prior](model.prior_shape((784,)), **settings)
    likelihoods = plugins["likelihood"]
    posterior = likelihood_over(prior.support)
    joint = model.build(prior, likelihoods["bernoulli"](), posterior, x.mean(0))
    joint.p.bind(joint.q, x)
    stage = Stage(estimator=Choice.of("estimator", estimator), optimizer=Optimizer(learning_rate=1e-3))
    return Training(joint, [stage], x, batch_size=len(x)), estimator


def tiny_world() -> World:
    """Two pixels and two latent bits under a table of energies."""
    joint = JointBound(BitInference(2, (2,)), Directed(Table((2,)), BitGenerator(2, 2)))
    return World.of(joint, 4, 0.8, all_bits((2,)), all_bits((2,)), torch.zeros(4), None)


def variances(name: str) -> dict[str, float]:
    """Exact variance of each group's gradient, in the first world that the estimator works in."""
    if name in DRAWS_OTHERWISE:
        return {}
    cls = registries()["estimator"][name]
    estimator = cls(**{"num_particles": 2} if "num_particles" in attrs.fields_dict(cls) else {})
    for world in (tiny_world(), World.of_reals(4, num_nodes=10)):
        groups = parameter_groups(world.joint.parts()).keys() - estimator.untrained
        try:
            estimator.check(world.joint, world.xs)
            return {group: variance(world, estimator, group) for group in sorted(groups)}
        except UsageError:
            continue
    return {}
