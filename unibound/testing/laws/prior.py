"""The exam of a prior: its values summed over every latent, its draws counted, its gradient against the exact."""

import functools
import math
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from unibound.energy import EnergyPrior
from unibound.prior import Prior
from unibound.registry import registries
from unibound.testing.networks import BitInference, LinearInference
from unibound.testing.replay import exact_chains
from unibound.testing.verdict import TOLERANCE, chi_square, demand, gap
from unibound.testing.worlds import all_bits, gradients, number, parameter_groups, scatter

NUM_DRAWS = 20_000


@attrs.frozen(eq=False)
class Subject:
    """A prior with scattered parameters, and every latent it has.

    Args:
        prior: over bits of shape [3], or reals of shape [1].
        make: builds it for another event shape, seed and dtype.
        taus: every latent [S, *Z]; a grid for reals.
        log_measure: log of what each counts for in a sum [S].
        bits: whether its support is bits.
    """

    prior: Prior
    make: Callable[..., Prior]
    taus: Tensor
    log_measure: Tensor
    bits: bool

    @classmethod
    def of(cls, plugin: Callable[[tuple[int, ...]], Prior]) -> "Subject":
        """Prepare a class of priors, or what makes one of an event shape."""
        likelihoods, posterior = registries()["likelihood"], plugin((1,)).posterior
        demand(
            posterior in likelihoods,
            f"its posterior is {posterior!r}, and no likelihood has that name; there are: {', '.join(likelihoods)}",
        )
        bits = likelihoods[posterior].support == "bits"
        make = functools.partial(_make, plugin, bits)
        if bits:
            return cls(make((3,), 1), make, all_bits((3,)), torch.zeros(8).double(), True)
        # Even steps of the inverse hyperbolic sine: fine near zero, and wide enough for heavy tails.
        steps = torch.linspace(-18, 18, 20_001, dtype=torch.float64)
        measure = steps.cosh().log() + math.log(36 / 20_000)
        return cls(make((1,), 1), make, steps.sinh().unsqueeze(1), measure, False)

    def energy_prior(self) -> EnergyPrior | None:
        """The prior, if it has an energy and its latents can be listed."""
        return self.prior if self.bits and isinstance(self.prior, EnergyPrior) else None

    def log_p(self) -> Tensor:
        """Normalized log-probability of every latent [S], nats."""
        return (self.prior.log_prob(self.taus) + self.log_measure).log_softmax(0)

    def fits(self, tau: Tensor, probability: Tensor) -> tuple[float, float]:
        """Chi-square of bits [N, *Z] against probabilities [S], and its limit."""
        return chi_square(number(tau.flatten(1)), probability)


def _make(
    plugin: Callable[[tuple[int, ...]], Prior],
    bits: bool,
    shape: tuple[int, ...],
    seed: int,
    dtype: torch.dtype = torch.float64,
) -> Prior:
    prior = scatter(plugin(shape), seed, scale=0.5).to(dtype)
    q = scatter(BitInference(3, shape) if bits else LinearInference(3, shape), seed=5)
    prior.bind(q.to(dtype), all_bits((3,)).to(dtype))
    if isinstance(prior, EnergyPrior):
        prior.fit_base(prior.base_sample(9))
    return prior


def shapes_and_dtypes(subject: Subject) -> str:
    """log_prob maps [..., *Z] to [...]; draws are [count, *Z], detached, in the dtype of the parameters."""
    for shape in (tuple(subject.prior.event_shape), (2, 1)):
        for dtype in (torch.float32, torch.float64):
            prior = subject.make(shape, 2, dtype)
            for name, tau in {"sample": prior.sample(4), "persistent": prior.persistent(4)}.items():
                demand(tau.shape == (4, *shape), f"{name}(4) has shape {list(tau.shape)} for events {list(shape)}")
                demand(tau.dtype == dtype, f"{name} is {tau.dtype} for parameters in {dtype}")
                demand(not tau.requires_grad, f"{name} carries a gradient; detach it")
                log_p, twice = prior.log_prob(tau), prior.log_prob(torch.stack([tau, tau.flip(0)]))
                demand(log_p.shape == (4,), f"log_prob of [4, *Z] has shape {list(log_p.shape)}, not [4]")
                demand(twice.shape == (2, 4), f"log_prob of [2, 4, *Z] has shape {list(twice.shape)}, not [2, 4]")
                demand(log_p.dtype == dtype, f"log_prob is {log_p.dtype} in {dtype}")
                off = gap(twice, torch.stack([log_p, log_p.flip(0)]))
                demand(off <= 1e-5, f"log_prob of a latent depends on those beside it, by {off:.3g} nats")
    return "[4] and [2, 4], in float32 and float64"


def normalized(subject: Subject) -> str:
    """exp(log_prob) sums, or integrates, to exp(log_z); log_z is None where that is not known."""
    known = subject.prior.log_z
    if known is None:
        return "does not apply: it says it is unnormalized"
    total = (subject.prior.log_prob(subject.taus) + subject.log_measure).logsumexp(0).item()
    demand(
        abs(total - known) <= (TOLERANCE if subject.bits else 1e-6),
        f"log of the sum over every latent is {total:.9f}, and log_z says {known:.9f}; is a constant missing?",
    )
    return f"log of the sum is {total:.2e}, as log_z says"


def gradient_is_that_of_log_p(subject: Subject) -> str:
    """The expected gradient of log_prob under p is zero: that of log Z is taken off, whatever the value."""
    groups = parameter_groups({"prior": subject.prior})
    if not groups:
        return "does not apply: it has no parameters"
    probability, worst = subject.log_p().exp().detach(), torch.zeros(())
    for weight in exact_chains(subject.prior, subject.taus):
        mean = (probability * subject.prior.log_prob(subject.taus)).sum()
        worst = worst + weight * gradients(mean, groups)["prior"]
    off = worst.abs().max().item()
    demand(
        off <= (TOLERANCE if subject.bits else 1e-6),
        f"the expected gradient under p has an entry of {off:.4g}, not 0; is the negative phase missing, doubled or of "
        "the wrong sign, or does log_prob lack a normalizer?",
    )
    return f"largest entry {off:.1e}"


def draws_follow_the_prior(subject: Subject) -> str:
    """sample draws from p."""
    tau = subject.prior.sample(NUM_DRAWS)
    if subject.bits:
        statistic, limit = subject.fits(tau, subject.log_p().exp().detach())
        what = f"chi-square {statistic:.1f} of {NUM_DRAWS} draws, limit {limit:.1f}"
    else:
        reached = torch.searchsorted(subject.taus.flatten(), tau.flatten().sort().values)  # [N]
        expected = subject.log_p().exp().cumsum(0).detach()[reached.clamp(max=len(subject.taus) - 1)]
        rank = torch.arange(1, NUM_DRAWS + 1) / NUM_DRAWS
        statistic, limit = (expected - rank).abs().max().item() * math.sqrt(NUM_DRAWS), 2.7
        what = f"Kolmogorov-Smirnov {statistic:.2f} of {NUM_DRAWS} draws, limit {limit}"
    demand(statistic <= limit, f"{what}: sample and log_prob are of two distributions")
    return what


def saved_and_loaded(subject: Subject) -> str:
    """A state dict carries all that the prior knows: parameters, chains and buffers."""
    shape = tuple(subject.prior.event_shape)
    other = subject.make(shape, 9)
    tau = other.sample(5)
    other.load_state_dict(subject.prior.state_dict())
    off = gap(other.log_prob(tau), subject.prior.log_prob(tau))
    demand(off <= TOLERANCE, f"log_prob differs by {off:.3g} nats after loading a state dict")
    if isinstance(other, EnergyPrior) and isinstance(subject.prior, EnergyPrior):
        demand(torch.equal(other.chains, subject.prior.chains), "the chains did not come back from a state dict")
        other_f, own_f = (prior.free_energy(tau, 0.3) for prior in (other, subject.prior))
        demand(gap(other_f, own_f) <= TOLERANCE, "the base distribution did not come back from a state dict")
    return "log_prob, chains and base come back" if subject.energy_prior() else "log_prob comes back"


LAWS = (
    shapes_and_dtypes,
    normalized,
    gradient_is_that_of_log_p,
    draws_follow_the_prior,
    saved_and_loaded,
)
