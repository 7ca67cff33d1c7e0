"""Parts that cannot work together are refused by whoever puts them together, by name and with the cure."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from torch.nn.functional import softplus

from unibound import Directed, EnergyPrior, Generator, Inference, JointBound, UsageError, registries
from unibound.distributions import Bits
from unibound.evaluation.evaluate import evaluate
from unibound.support import values
from unibound.testing.priors import Rates, Spins, Table, Well


class Q(Inference):
    """q over images of the size of data, with so many event dimensions."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Distribution:
        return Bits(0 * x, self.dims)


class P(Generator):
    """p(x | tau) over images, with so many event dimensions."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, tau: Tensor) -> Distribution:
        return Bits(0 * tau, self.dims)


class Loose(Rates):
    """A prior that forgets to sum over an event."""

    def log_prob(self, tau: Tensor) -> Tensor:
        return tau * self.logits - softplus(self.logits)


@pytest.mark.parametrize("k", [1, 3, 32])
@pytest.mark.parametrize(
    ("joint", "name"),
    [
        (lambda: JointBound(Q(1), Directed(Rates((32, 32)), P())), r"log q\(tau \| x\) .* in Independent"),
        (lambda: JointBound(Q(), Directed(Rates((32, 32)), P(1))), r"p\(x \| tau\) .* in Independent"),
        (lambda: JointBound(Q(), Directed(Rates((32, 32)), P(3))), r"p\(x \| tau\) .* in Independent"),
        (lambda: JointBound(Q(), Directed(Loose((32, 32)), P())), r"log p\(tau\) .* log_prob of Loose sum over"),
    ],
    ids=["q", "p(x | tau)", "p(x | tau) of a batch", "prior"],
)
def test_a_log_probability_of_another_shape_is_named(k: int, joint: Callable[[], JointBound], name: str) -> None:
    x = (torch.rand(32, 32, 32) < 0.5).float()
    with pytest.raises(UsageError, match=name) as caught:
        joint().particles(x, k)
    assert f"not [{k}, 32]" in str(caught.value)


@pytest.mark.parametrize("dims", [1, 3])
def test_events_that_are_no_datum_are_refused_before_anything_is_evaluated(dims: int) -> None:
    x = (torch.rand(32, 32, 32) < 0.5).float()
    joint = JointBound(Q(), Directed(Rates((32, 32)), P(dims)))
    with pytest.raises(UsageError, match=r"p\(x"):
        joint.check(x)
    with pytest.raises(UsageError, match=r"p\(x"):
        evaluate(joint, x, num_particles=1)
    assert JointBound(Q(), Directed(Rates((32, 32)), P())).check(x) is None


class Normals(Inference):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Distribution:
        mean = torch.zeros(*x.shape[:-1], self.size)
        return Independent(Normal(mean, 1.0), 1)


class Fair(Generator):
    def forward(self, tau: Tensor) -> Distribution:
        return Bits(torch.zeros(*tau.shape[:-1], 6))


class Mute(Inference):
    """Draws reals, and has no support to tell so."""

    def forward(self, x: Tensor) -> Distribution:
        class Silent(Normal):
            support = property(lambda self: (_ for _ in ()).throw(NotImplementedError))  # pyright: ignore

        return Independent(Silent(torch.zeros(*x.shape[:-1], 4), 1.0, validate_args=False), 1, validate_args=False)


@pytest.mark.parametrize("prior", [Table, Spins, lambda shape: registries()["prior"]["rbm"](shape)])
@pytest.mark.parametrize("q", [lambda: Normals(4), Mute], ids=["gaussian", "mute"])
def test_a_q_over_reals_under_a_prior_of_bits_is_refused(prior: Callable, q: Callable, bits: Tensor) -> None:
    joint = JointBound(q(), Directed(prior((4,)), Fair()))
    kind = "spins" if values(joint.p.support) == (-1.0, 1.0) else "bits"
    for ask in (lambda: joint.particles(bits, 2), lambda: evaluate(joint, bits, num_particles=2)):
        with pytest.raises(UsageError, match=f"prior is over {kind}|but the prior is over {kind}|over {kind}"):
            ask()


def test_a_q_of_bits_under_a_prior_of_spins_or_reals_is_refused(mlp: Callable, bits: Tensor) -> None:
    q = mlp(bits, "bernoulli").q
    for prior in (Spins((4,)), Well((4,)), registries()["prior"]["gaussian"]((4,))):
        with pytest.raises(UsageError, match="over bits, but the prior is over"):
            JointBound(q, Directed(prior, Fair())).particles(bits, 2)


def test_sgvb_asks_for_draws_that_have_a_path(mlp: Callable, bits: Tensor) -> None:
    joint, sgvb = mlp(bits, "bernoulli"), registries()["estimator"]["sgvb"]()
    with pytest.raises(UsageError, match=r"sgvb needs reparameterized samples, but .* is Bits; use vimco"):
        sgvb.check(joint, bits)
    with pytest.raises(UsageError, match="Bits has no reparameterized draws; use an estimator that needs none"):
        sgvb(joint, bits)
    with pytest.raises(UsageError, match="no reparameterized draws"):
        joint.particles(bits, 2, reparameterized=True)


@pytest.mark.parametrize("shape", [(3,), (5,), (4, 1), (2, 2)])
@pytest.mark.parametrize("prior", ["rbm", "bernoulli"])
def test_a_prior_of_another_shape_is_refused(shape: tuple[int, ...], prior: str, bits: Tensor) -> None:
    known = registries()
    plain = known["likelihood"]["bernoulli"]()
    for model in (known["model"]["mlp"](num_latents=4), known["model"]["resnet"](num_latents=4)):
        with pytest.raises(UsageError, match=rf"latents of shape \[4\], but its prior events of shape .*{shape[0]}"):
            model.build(known["prior"][prior](shape), plain, plain, bits.mean(0))


ENERGIES = [Table, Spins, Well, lambda shape: registries()["prior"]["rbm"](shape, num_hidden=3)]


def slope(prior: EnergyPrior, tau: Tensor) -> list[Tensor]:
    prior.zero_grad()
    prior.log_prob(tau).sum().backward()
    return [parameter.grad for parameter in prior.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("make", ENERGIES, ids=["table", "spins", "well", "rbm"])
def test_an_energy_gives_no_gradient_that_it_cannot(make: Callable[[tuple[int, ...]], EnergyPrior]) -> None:
    prior = make((3,))
    tau = prior.chains.clone()
    with pytest.raises(UsageError, match=r"chains that were never moved; call joint\.advance"):
        slope(prior, tau)
    prior.advance()
    # At the chains themselves, both phases are the same.
    for gradient in slope(prior, prior.chains.clone()):
        assert gradient == pytest.approx(torch.zeros_like(gradient), abs=1e-4)
    prior.eval()
    with pytest.raises(UsageError, match="in evaluation mode; call train"):
        slope(prior, tau)
    assert torch.equal(prior.log_prob(tau), -prior.free_energy(tau))
    with torch.no_grad():
        assert torch.equal(prior.train().log_prob(tau), -prior.free_energy(tau))


@pytest.mark.parametrize("make", ENERGIES, ids=["table", "spins", "well", "rbm"])
def test_chains_that_were_loaded_are_moved_before_they_are_read(make: Callable) -> None:
    moved, fresh = make((3,)), make((3,))
    moved.advance()
    weights = fresh.state_dict()
    moved.load_state_dict(weights)  # chains as they were drawn
    with pytest.raises(UsageError, match="chains that were never moved"):
        slope(moved, moved.chains.clone())
    moved.advance()
    assert all(gradient.isfinite().all() for gradient in slope(moved, moved.chains.clone()))


@pytest.mark.parametrize("make", [*ENERGIES[3:], Well], ids=["rbm", "well"])
def test_another_precision_keeps_the_chains_as_they_are(make: Callable) -> None:
    prior = make((3,))
    with pytest.raises(UsageError, match="never moved"):
        slope(prior.double(), prior.chains.clone())
    prior.advance()
    tau = prior.float().chains.clone()
    assert all(gradient.dtype == torch.float32 for gradient in slope(prior, tau))
    assert all(gradient.dtype == torch.float64 for gradient in slope(prior.double(), tau.double()))
    prior.eval().float()
    with pytest.raises(UsageError, match="evaluation mode"):
        slope(prior, tau)


def test_a_gradient_by_tau_alone_is_given_in_evaluation_mode() -> None:
    """Where the prior's own parameters are held still nothing is missing: that of log Z by tau is zero."""
    prior = Well((2,)).eval().requires_grad_(False)
    tau = torch.randn(5, 2, requires_grad=True)
    prior.log_prob(tau).sum().backward()
    wanted = tau.detach().clone().requires_grad_()
    (-prior.free_energy(wanted)).sum().backward()
    assert torch.equal(tau.grad, wanted.grad)  # pyright: ignore
