"""The exam of a prior: its values summed over every latent, its draws counted, its gradient against the exact."""

import functools
import math
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from unibound.energies.energy import EnergyPrior
from unibound.networks import Inference
from unibound.prior import Prior
from unibound.support import boolean, describe, real, same, values
from unibound.testing.listing import all_bits, all_states, gradients, number, parameter_groups, scatter
from unibound.testing.networks import BitInference, LinearInference
from unibound.testing.replay import exact_chains
from unibound.testing.verdict import TOLERANCE, chi_square, demand, gap

NUM_DRAWS = 20_000


@attrs.frozen(eq=False)
class Subject:
    """A prior with scattered parameters, and every latent it has.

    Args:
        prior: over a finite support of shape [3], or reals of shape [1].
        make: builds it for another event shape, seed and dtype.
        taus: every latent [S, *Z]; a grid for reals.
        log_measure: log of what each counts for in a sum [S].
        listed: whether the latents are listed, and no grid.
    """

    prior: Prior
    make: Callable[..., Prior]
    taus: Tensor
    log_measure: Tensor
    listed: bool

    @classmethod
    def of(cls, plugin: Callable[[tuple[int, ...]], Prior]) -> "Subject":
        """Prepare a class of priors, or what makes one of an event shape."""
        plugin = _small(plugin)
        over = plugin((1,)).support
        demand(
            over is None or same(over, real) or values(over) is not None,
            f"its support is {describe(over)}; the exam can list finite supports, and integrate over reals",
        )
        if over is not None and same(over, real):
            make = functools.partial(_make, plugin, LinearInference)
            prior = make((1,), 1)
            taus, log_measure = _grid(801 if isinstance(prior, EnergyPrior) else 20_001)
            return cls(prior, make, taus, log_measure, False)
        make = functools.partial(_make, plugin, BitInference)
        prior = make((3,), 1)
        taus = all_states(over or boolean, tuple(prior.state_shape))
        return cls(prior, make, taus, torch.zeros(len(taus)).double(), True)

    @property
    def tolerance(self) -> float:
        """How far a sum over every latent may be off."""
        return TOLERANCE if self.listed else 1e-6

    @property
    def energy_prior(self) -> EnergyPrior | None:
        """The prior, if it has an energy."""
        return self.prior if isinstance(self.prior, EnergyPrior) else None

    def log_p(self, beta: float | None = None) -> Tensor:
        """Normalized log-probability of every latent [S], nats, what it counts for included; of p_beta if asked."""
        prior = self.energy_prior
        if prior is not None and beta is not None:
            return (self.log_measure - prior.free_energy(self.taus, beta)).log_softmax(0)
        return (self.prior.log_prob(self.taus) + self.log_measure).log_softmax(0)

    def draws(self, beta: float, count: int) -> Tensor:
        """Exact draws of p_beta [count, *Z]; between the points of a grid, evenly."""
        chosen = self.log_p(beta).detach().exp().multinomial(count, replacement=True)
        tau = self.taus[chosen]
        if self.listed:
            return tau
        steps = self.taus.flatten()
        width = torch.cat([steps[1:] - steps[:-1], steps[-1:] - steps[-2:-1]])[chosen].unsqueeze(1)
        return tau + width * (torch.rand_like(tau) - 0.5)

    def fit(self, tau: Tensor, log_p: Tensor) -> tuple[float, float, str]:
        """How badly draws [N, *Z] fit log-probabilities [S]: a statistic, its limit, and both in words.

        Chi-square where latents are listed, Kolmogorov-Smirnov on a grid.
        """
        log_p = log_p.detach()
        if self.listed:
            index = number(tau.flatten(1), self.prior.support or boolean)
            statistic, limit = chi_square(index, log_p.exp())
            return statistic, limit, f"chi-square {statistic:.1f} of {len(tau)} draws, limit {limit:.1f}"
        ranked = tau.flatten().sort().values
        # Half of a point of the grid lies to either side of it.
        mass = log_p.exp()
        below = mass.cumsum(0) - mass / 2
        position = torch.searchsorted(self.taus.flatten(), ranked).clamp(1, len(self.taus) - 1)
        left, right = self.taus.flatten()[position - 1], self.taus.flatten()[position]
        expected = torch.lerp(below[position - 1], below[position], ((ranked - left) / (right - left)).clamp(0, 1))
        rank = (torch.arange(len(ranked)) + 0.5) / len(ranked)
        statistic, limit = (expected - rank).abs().max().item() * math.sqrt(len(ranked)), 2.7
        return statistic, limit, f"Kolmogorov-Smirnov {statistic:.2f} of {len(tau)} draws, limit {limit}"


def _small(plugin: Callable[[tuple[int, ...]], Prior]) -> Callable[[tuple[int, ...]], Prior]:
    """With so few latents of its own that its states can be listed."""
    named = plugin.func if isinstance(plugin, functools.partial) else plugin
    return functools.partial(plugin, **getattr(named, "small", {}))


def _grid(count: int) -> tuple[Tensor, Tensor]:
    """Reals [S, 1] and log of what each counts for [S]: fine near zero, and wide enough for heavy tails."""
    # Even steps of the inverse hyperbolic sine.
    steps = torch.linspace(-18, 18, count, dtype=torch.float64)
    return steps.sinh().unsqueeze(1), steps.cosh().log() + math.log(36 / (count - 1))


def _make(
    plugin: Callable[[tuple[int, ...]], Prior],
    inference: type[BitInference | LinearInference],
    shape: tuple[int, ...],
    seed: int,
    dtype: torch.dtype = torch.float64,
) -> Prior:
    prior = scatter(plugin(shape), seed, scale=0.5).to(dtype)
    q: Inference = scatter(inference(3, shape), seed=5)
    if prior.inner is not None:
        q = q.extended(prior.inner, prior.state_shape.numel() - prior.event_shape.numel())
    prior.bind(q.to(dtype), all_bits((3,)).to(dtype))
    if isinstance(prior, EnergyPrior):
        prior.fit_base(prior.base_sample(9))
    prior.advance()
    return prior


def shapes_and_dtypes(subject: Subject) -> str:
    """log_prob maps [..., *Z] to [...]; draws are [count, *Z], detached, in the dtype of the parameters."""
    for shape in (tuple(subject.prior.event_shape), (2, 1)):
        for dtype in (torch.float32, torch.float64):
            prior = subject.make(shape, 2, dtype)
            shape = tuple(prior.state_shape)  # of what it is over
            for name, tau in {"sample": prior.sample(4), "persistent": prior.persistent(4)}.items():
                demand(tau.shape == (4, *shape), f"{name}(4) has shape {list(tau.shape)} for events {list(shape)}")
                demand(tau.dtype == dtype, f"{name} is {tau.dtype} for parameters in {dtype}")
                demand(not tau.requires_grad, f"{name} carries a gradient; detach it")
                log_p, twice = prior.log_prob(tau), prior.log_prob(torch.stack([tau, tau.flip(0)]))
                demand(log_p.shape == (4,), f"log_prob of [4, *Z] has shape {list(log_p.shape)}, not [4]")
                demand(twice.shape == (2, 4), f"log_prob of [2, 4, *Z] has shape {list(twice.shape)}, not [2, 4]")
                demand(log_p.dtype == dtype, f"log_prob is {log_p.dtype} in {dtype}")
                if dtype == torch.float64:  # in float32 rounding may depend on how many there are
                    off = gap(twice, torch.stack([log_p, log_p.flip(0)]))
                    demand(off <= 1e-9, f"log_prob of a latent depends on those beside it, by {off:.3g} nats")
    return "[4] and [2, 4], in float32 and float64"


def normalized(subject: Subject) -> str:
    """exp(log_prob) sums, or integrates, to exp(log_z); log_z is None where that is not known."""
    known = subject.prior.log_z
    if known is None:
        return "does not apply: it says it is unnormalized"
    total = (subject.prior.log_prob(subject.taus) + subject.log_measure).logsumexp(0).item()
    demand(
        abs(total - known) <= subject.tolerance,
        f"log of the sum over every latent is {total:.9f}, and log_z says {known:.9f}; is a constant missing?",
    )
    return f"log of the sum is {total:.2e}, as log_z says"


def gradient_is_that_of_log_p(subject: Subject) -> str:
    """The expected gradient of log_prob under p is zero: that of log Z is taken off, whatever the value."""
    groups = parameter_groups({"prior": subject.prior})
    if not groups:
        return "does not apply: it has no parameters"
    probability, worst = subject.log_p().exp().detach(), torch.zeros(())
    for weight in exact_chains(subject.prior, subject.taus, subject.log_measure):
        mean = (probability * subject.prior.log_prob(subject.taus)).sum()
        worst = worst + weight * gradients(mean, groups)["prior"]
    off = worst.abs().max().item()
    demand(
        off <= subject.tolerance,
        f"the expected gradient under p has an entry of {off:.4g}, not 0; is the negative phase missing, doubled or of "
        "the wrong sign, or does log_prob lack a normalizer?",
    )
    return f"largest entry {off:.1e}"


def draws_follow_the_prior(subject: Subject) -> str:
    """sample draws from p."""
    statistic, limit, what = subject.fit(subject.prior.sample(NUM_DRAWS), subject.log_p())
    demand(statistic <= limit, f"{what}: sample and log_prob are of two distributions")
    return what


def support_is_true(subject: Subject) -> str:
    """Draws, chains and draws of the base lie in the support that is declared."""
    over = subject.prior.support
    if over is None:
        return "does not apply: it is over whatever q is"
    draws = {"sample": subject.prior.sample(200), "persistent": subject.prior.persistent(20)}
    if (prior := subject.energy_prior) is not None:
        draws |= {
            "base_sample": prior.base_sample(200),
            "chains": prior.chains,
            "move": prior.move(prior.chains, 1, 0.5),
        }
    for name, tau in draws.items():
        demand(bool(over.check(tau).all()), f"it says it is over {describe(over)}, but {name} gives other values")
    return f"{', '.join(draws)}: {describe(over)}"


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
    return "log_prob, chains and base come back" if subject.energy_prior else "log_prob comes back"


LAWS = (
    shapes_and_dtypes,
    normalized,
    gradient_is_that_of_log_p,
    draws_follow_the_prior,
    support_is_true,
    saved_and_loaded,
)
