"""The generator of `mlp` may have widths and dropout of its own."""

import torch
from unibound_plugins.likelihoods import Bernoulli
from unibound_plugins.models.mlp import MLP
from unibound_plugins.priors import Gaussian


def linear(module: torch.nn.Module) -> list[tuple[int, int]]:
    return [(one.in_features, one.out_features) for one in module.modules() if isinstance(one, torch.nn.Linear)]


def test_a_generator_of_its_own_widths_and_dropout() -> None:
    model = MLP(num_latents=2, hidden=(5, 4), generator_hidden=(6, 7), dropout=0.0, generator_dropout=0.5)
    joint = model.assemble(Gaussian((2,)), Bernoulli(), Bernoulli(), torch.zeros(3))
    assert linear(joint.q) == [(3, 5), (5, 4), (4, 2)]
    assert linear(joint.p) == [(2, 6), (6, 7), (7, 3)]
    x, tau = torch.rand(4, 3), torch.randn(4, 2)
    assert torch.equal(joint.q(x).mean, joint.q(x).mean)  # in training, too
    assert not torch.equal(joint.p.conditional(tau).mean, joint.p.conditional(tau).mean)
    with joint.evaluating():
        assert torch.equal(joint.p.conditional(tau).mean, joint.p.conditional(tau).mean)


def test_by_default_it_is_the_mirror() -> None:
    joint = MLP(num_latents=2, hidden=(5, 4)).assemble(Gaussian((2,)), Bernoulli(), Bernoulli(), torch.zeros(3))
    assert linear(joint.p) == [(2, 4), (4, 5), (5, 3)]


def test_large_data_have_more_latents_by_default() -> None:
    """Each of a few latents that have to tell many data apart is certain, and q no longer chooses."""
    shapes = {(8, 8): 20, (4,): 20, (160,): 20, (28, 28): 98, (3, 32, 32): 200}
    assert {shape: MLP().prior_shape(shape)[0] for shape in shapes} == shapes
    assert MLP(num_latents=7).prior_shape((28, 28)) == (7,)


def test_the_generator_begins_at_the_mean_of_the_data() -> None:
    torch.manual_seed(0)
    mean = torch.linspace(0.05, 0.95, 40).view(5, 8)
    joint = MLP(num_latents=3, dropout=0.0).assemble(Gaussian((3,)), Bernoulli(), Bernoulli(), mean)
    begun = joint.p.conditional(torch.randn(500, 3)).mean
    assert (begun.mean(0) - mean).abs().max() < 0.05
