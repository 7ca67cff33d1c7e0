"""The exam of a partition estimator: a prior whose log Z is known, and what is claimed of it."""

import copy
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from unibound.claim import Side
from unibound.energies.energy import EnergyPrior
from unibound.partition.log_z import LogZ, PartitionEstimator, Sandwich
from unibound.testing.listing import all_bits, scatter
from unibound.testing.priors import Table
from unibound.testing.verdict import FALSE_ALARM, TOLERANCE, demand, gap, mean_and_error


@attrs.frozen(eq=False)
class Subject:
    """A partition estimator and a prior with its exact log Z.

    Args:
        estimator: with 400 chains and 100 temperatures, where it has fields of these names.
        rough: with 40 and 4, so that its spread shows.
        crude: with 3 and 1, so that its bias shows.
        prior: a table of energies of three bits, its base distribution off the mark.
        taus: every latent [S, *Z].
        log_z: exact, nats.
    """

    estimator: PartitionEstimator
    rough: PartitionEstimator
    crude: PartitionEstimator
    prior: EnergyPrior
    taus: Tensor
    log_z: float

    @classmethod
    def of(cls, plugin: PartitionEstimator | Callable[[], PartitionEstimator]) -> "Subject":
        """Prepare a partition estimator, or what makes one when called."""
        estimator = plugin if isinstance(plugin, PartitionEstimator) else plugin()
        prior, taus = scatter(Table((3,)), 7, scale=2.0), all_bits((3,))
        exact = (-prior.free_energy(taus)).logsumexp(0).item()
        return cls(
            resized(estimator, 400, 100), resized(estimator, 40, 4), resized(estimator, 3, 1), prior, taus, exact
        )

    def repeat(self, estimator: PartitionEstimator, times: int) -> list[LogZ | Sandwich]:
        """Repeated estimates; none where the estimator gives no log Z."""
        found: list[LogZ | Sandwich] = []
        while len(found) < times and (log_z := estimator.fit(self.prior).log_z) is not None:
            found.append(log_z)
        return found


def resized(estimator: PartitionEstimator, num_chains: int, num_temperatures: int) -> PartitionEstimator:
    """The same estimator with other numbers of chains and temperatures, where it has such settings."""
    sizes = {"num_chains": num_chains, "num_temperatures": num_temperatures}
    names = attrs.fields_dict(type(estimator)) if attrs.has(type(estimator)) else {}
    return attrs.evolve(estimator, **{name: size for name, size in sizes.items() if name in names})


def log_z_is_within_its_error(subject: Subject) -> str:
    """log Z is exact if its side is `equal`, and else within five standard errors."""
    log_z = subject.estimator.fit(subject.prior).log_z
    if log_z is None:
        return "does not apply: it gives no log Z"
    off = log_z.value - subject.log_z
    numbers = f"log Z = {log_z.value:.9f} +- {log_z.stderr:.2g}, exactly {subject.log_z:.9f}, off by {off:.3g} nats"
    if log_z.side is Side.EQUAL:
        demand(abs(off) <= TOLERANCE, f"{numbers}, though it says `equal`")
    else:
        demand(log_z.stderr > 0, f"{numbers}: an estimate with draws has an error")
        demand(abs(off) <= 5 * log_z.stderr, f"{numbers}: {abs(off) / log_z.stderr:.1f} standard errors")
    return numbers


def side_is_honest(subject: Subject) -> str:
    """E[value] <= log Z if the side is `lower`, and >= if `upper`; by crude runs, repeated."""
    values = subject.repeat(subject.crude, 200)
    if not values:
        return "does not apply: it gives no log Z"
    side = values[0].side
    mean, error = mean_and_error(_column(values, "value") - subject.log_z)
    numbers = f"{side}: over {len(values)} crude runs it is off by {mean:.4g} +- {error:.2g} nats"
    sign = {Side.EQUAL: 0, Side.LOWER: 1, Side.UPPER: -1, Side.NONE: 0}[side]
    if side is Side.NONE:
        return "does not apply: it claims no side"
    demand(sign * mean <= FALSE_ALARM * error + TOLERANCE, f"{numbers}, on the other side")
    demand(sign != 0 or abs(mean) <= TOLERANCE, numbers)
    return numbers


def both_sides_are_right(subject: Subject) -> str:
    """Of a sandwich, the lower side errs low and the upper high; by crude runs, repeated."""
    pairs = [log_z for log_z in subject.repeat(subject.crude, 50) if isinstance(log_z, Sandwich)]
    if not pairs:
        return "does not apply: it estimates one side only"
    lower, upper = pairs[0].lower.side, pairs[0].upper.side
    demand((lower, upper) == (Side.LOWER, Side.UPPER), f"its lower side is called {lower}, its upper side {upper}")
    mean, error = mean_and_error(torch.tensor([pair.gap for pair in pairs], dtype=torch.float64))
    numbers = f"over {len(pairs)} crude runs the upper side is {mean:.4g} +- {error:.2g} nats above the lower"
    demand(mean >= -FALSE_ALARM * error, numbers)
    return numbers


def error_bar_is_honest(subject: Subject) -> str:
    """The standard error it gives is the spread of repeated runs, within a factor of two."""
    values = subject.repeat(subject.rough, 50)
    if not values or values[0].side is Side.EQUAL:
        return "does not apply: it is exact, or gives no log Z"
    spread, bars = _column(values, "value").std().item(), _column(values, "stderr")
    given = bars[bars.isfinite()]  # a run that one chain carries has no bar, and says so
    demand(2 * len(given) >= len(bars), f"{len(bars) - len(given)} of {len(bars)} rough runs have no error bar")
    said = given.square().mean().sqrt().item()
    numbers = f"{len(values)} rough runs spread by {spread:.3g} nats, their standard errors say {said:.3g}"
    demand(0.5 * spread <= said <= 2 * spread, numbers)
    return numbers


def effective_sample_size_is_a_size(subject: Subject) -> str:
    """The effective sample size lies between 1 and the number of chains."""
    log_z = subject.estimator.fit(subject.prior).log_z
    if log_z is None or log_z.ess is None or log_z.num_chains is None:
        return "does not apply: it gives none"
    numbers = f"effective sample size {log_z.ess:.1f} of {log_z.num_chains} chains"
    demand(1 - TOLERANCE <= log_z.ess <= log_z.num_chains * (1 + TOLERANCE), numbers)
    return numbers


def log_prob_is_normalized(subject: Subject) -> str:
    """log_prob is log p*(tau) + log_correction(tau), float64, and sums to one as far as log Z is right."""
    fitted = subject.estimator.fit(subject.prior)
    tau = subject.taus.unsqueeze(0).expand(2, *subject.taus.shape)
    log_p, correction = fitted.log_prob(tau), fitted.log_correction(tau)
    demand(log_p.shape == tau.shape[:2], f"log_prob of [2, 8, *Z] has shape {list(log_p.shape)}, not [2, 8]")
    for name, value in {"log_prob": log_p, "log_correction": correction}.items():
        demand(value.dtype == torch.float64, f"{name} is {value.dtype}; evaluation needs float64")
    demand(bool(fitted.of), "`of` must say what log_prob is, or bounds: `log p`, say")
    if fitted.log_z is None:
        draws = subject.rough.fit(subject.prior).log_prob(subject.taus.repeat(100, 1))
        total, error = mean_and_error(draws.view(100, -1).exp().sum(1))
        demand(total <= 1 + FALSE_ALARM * error, f"exp(log_prob) sums to {total:.4f} +- {error:.2g}, more than one")
        return f"exp(log_prob) sums to {total:.4f} +- {error:.2g}; it is {fitted.of}"
    off = gap(log_p[0], subject.prior.log_prob(subject.taus) - fitted.log_z.value)
    demand(off <= TOLERANCE, f"log_prob is {off:.3g} nats off log p* - log_z.value")
    return f"log p* - log Z, float64; it is {fitted.of}"


def fit_leaves_the_prior_alone(subject: Subject) -> str:
    """fit changes no parameter, chain or mode of the prior, and says the same twice under one seed."""
    before = copy.deepcopy(subject.prior.state_dict())
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        found.append(subject.rough.fit(subject.prior).log_prob(subject.taus))
    for name, value in subject.prior.state_dict().items():
        demand(torch.equal(value, before[name]), f"fit changed {name} of the prior")
    demand(subject.prior.training, "fit left the prior in evaluation mode")
    demand(torch.equal(*found), f"two fits differ by {gap(*found):.3g} nats after the same torch.manual_seed")
    return "untouched, and the same twice"


def single_precision_will_do(subject: Subject) -> str:
    """A prior in float32 is accepted, and answered in float64."""
    wide = subject.estimator.fit(subject.prior)
    fitted = subject.estimator.fit(copy.deepcopy(subject.prior).float())
    demand(fitted.log_prob(subject.taus.float()).dtype == torch.float64, "log_prob is not float64")
    if fitted.log_z is None or wide.log_z is None:
        return "float64"
    off, limit = abs(fitted.log_z.value - subject.log_z), 5 * fitted.log_z.stderr + 1e-5
    demand(off <= limit, f"log Z of a float32 prior is off by {off:.3g} nats, limit {limit:.3g}")
    return f"off by {off:.1e} nats"


def _column(values: list[LogZ | Sandwich], name: str) -> Tensor:
    return torch.tensor([getattr(log_z, name) for log_z in values], dtype=torch.float64)


LAWS = (
    log_z_is_within_its_error,
    side_is_honest,
    both_sides_are_right,
    error_bar_is_honest,
    effective_sample_size_is_a_size,
    log_prob_is_normalized,
    fit_leaves_the_prior_alone,
    single_precision_will_do,
)
