"""What the reported number must be."""

from itertools import pairwise

from torch import Tensor

from unibound.errors import UsageError
from unibound.testing.laws.candidate import Candidate, bound_of, claims_bound, levels, objective, resized
from unibound.testing.replay import Rehearsal, expected_bound, rehearse
from unibound.testing.verdict import TOLERANCE, LawBroken, demand, gap, in_words


def log_weights_are_of_the_draws(candidate: Candidate) -> str:
    """log_weights are log p*(x, tau) - log q(tau | x) of the particles that were drawn."""
    for name, world in candidate.worlds.items():
        rehearsal = rehearse(world, candidate.estimator)
        got, drawn = rehearsal.estimate.log_weights, rehearsal.replay.log_weights()
        if got is None or drawn is None:
            return "does not apply: it reports no log-weights of particles"
        if len(got) != len(drawn):
            return f"does not apply: it drew {len(drawn)} particles and reports the weights of {len(got)}"
        off, ratio = gap(got, drawn.detach()), (got.sum() / drawn.sum()).item()
        scaled = gap(got, ratio * drawn.detach()) <= TOLERANCE
        hint = f"; they are {ratio:.4g} times as large: scale the surrogate of a datum, never its weights"
        demand(off <= TOLERANCE, f"{name}: log_weights are off by {off:.3g} nats{hint if scaled else ''}")
    return "equal to those of the particles drawn"


def bound_is_on_its_side(candidate: Candidate) -> str:
    """E[bound] <= log p*(x) for every x if the side is `lower`, and equal to it if `equal`."""
    slack = float("inf")
    for name, world in candidate.worlds.items():
        truth = (world.log_prob() + world.log_z()).detach()  # [N]
        for estimator in candidate.sizes():
            rehearsal = rehearse(world, estimator)
            side = rehearsal.estimate.side
            if not claims_bound(rehearsal):
                return "does not apply: it claims no bound"
            expected = rehearsal.mean(bound_of(rehearsal))
            excess = expected - truth if side == "lower" else (expected - truth).abs()
            at = int(excess.argmax())
            slack = min(slack, -excess[at].item())
            demand(
                excess[at].item() <= TOLERANCE,
                f"{name}: {estimator} says '{side}', but at x = {world.xs[at].tolist()} E[bound] = {expected[at]:.6f} "
                f"and log p*(x) = {truth[at]:.6f}, off by {excess[at]:.4g} nats"
                + (_suspect(rehearsal) if side == "lower" else "; it is only a bound of it: say `lower`, if below"),
            )
    return f"at least {slack:.3g} nats below log p*(x)" if slack > TOLERANCE else "equal to log p*(x)"


def bound_is_that_of_its_log_weights(candidate: Candidate) -> str:
    """E[bound] is L_K, or the ELBO, of as many particles as log_weights has."""
    found = set()
    for name, world in candidate.worlds.items():
        rehearsal = rehearse(world, candidate.estimator)
        if not claims_bound(rehearsal) or rehearsal.estimate.log_weights is None:
            return "does not apply: it claims no bound, or none of log-weights"
        match = objective(world, rehearsal)
        if match is None:
            known = levels(world, len(rehearsal.estimate.log_weights))
            numbers = {"E[bound]": rehearsal.mean(bound_of(rehearsal)), **known}
            means = {what: (world.log_data.exp() * values).sum().item() for what, values in numbers.items()}
            raise LawBroken(
                f"{name}: in nats, over the data: {in_words(means)}; what is reported is neither bound"
                f"{_suspect(rehearsal)}; a valid bound of another kind reports log_weights=None"
            )
        found.add(match[0])
    return f"equal to {' and '.join(sorted(found))}"


def _suspect(rehearsal: Rehearsal) -> str:
    """Say which well-known wrong value it is, if it is one."""
    log_w = rehearsal.replay.log_weights()
    if log_w is None:
        return ""
    known: dict[str, Tensor] = {
        "log of the sum of the weights: the 1/K is missing": log_w.logsumexp(0),
        "sum of normalized weight times log-weight, which is no bound": (log_w.softmax(0) * log_w).sum(0),
        "largest log-weight, which is no bound": log_w.amax(0),
        "negative surrogate, whose value means nothing: report the bound itself": -rehearsal.estimate.surrogate,
    }
    expected = rehearsal.mean(bound_of(rehearsal))
    for what, values in known.items():
        if gap(expected, rehearsal.mean(values.detach())) <= TOLERANCE:
            return f"; it is the {what}"
    return "; is something scaled inside the logsumexp, or a constant left out?"


def more_particles_tighten_the_bound(candidate: Candidate) -> str:
    """L_1 <= L_K <= L_{K+1} for every x, by the setting num_particles."""
    if len(candidate.sizes()) < 2:
        return "does not apply: it has no setting num_particles"
    lines = []
    for name, world in candidate.worlds.items():
        if not claims_bound(rehearse(world, candidate.estimator)):
            return "does not apply: it claims no bound"
        elbo = (world.bound(1) + world.log_z()).detach()
        ladder = [elbo, *(expected_bound(world, estimator) for estimator in candidate.sizes())]
        means = [(world.log_data.exp() * values).sum().item() for values in ladder]
        rungs = " <= ".join(f"{value:.6f}" for value in means)
        for lower, upper in pairwise(ladder):
            drop = (lower - upper).max().item()
            demand(
                drop <= TOLERANCE,
                f"{name}: the bound falls by {drop:.4g} nats for some x as particles are added; over the data, from "
                f"the ELBO on: {rungs}; is a sum taken where a mean is due?",
            )
        lines.append(rungs)
    return "; ".join(lines)


def one_particle_is_the_elbo(candidate: Candidate) -> str:
    """With num_particles = 1 the expected bound is the ELBO, unless that is refused."""
    single = resized(candidate.estimator, 1)
    if single is None:
        return "does not apply: it has no setting num_particles, or refuses 1"
    worst = 0.0
    for name, world in candidate.worlds.items():
        rehearsal = rehearse(world, single)
        if not claims_bound(rehearsal):
            return "does not apply: it claims no bound"
        off = gap(rehearsal.mean(bound_of(rehearsal)), (world.bound(1) + world.log_z()).detach())
        demand(off <= TOLERANCE, f"{name}: with one particle E[bound] is {off:.4g} nats off the ELBO")
        worst = max(worst, off)
    return f"within {worst:.1e} nats"


def partial_draws_are_only_averaged(candidate: Candidate) -> str:
    """Draws that each stand for one term of tau are refused, or their log-weights averaged: E[bound] is the ELBO."""
    name, world = next(iter(candidate.worlds.items()))
    terms = world.of_terms()
    try:
        candidate.estimator.check(terms.joint, terms.xs)
        rehearsal = rehearse(terms, candidate.estimator)
    except UsageError as error:
        return f"refuses them: {error}"
    if not claims_bound(rehearsal):
        return "does not apply: it claims no bound"
    off = gap(rehearsal.mean(bound_of(rehearsal)), (world.bound(1) + world.log_z()).detach())
    demand(
        off <= TOLERANCE,
        f"{name}: of log-weights that are one term each, E[bound] is {off:.4g} nats off their mean, the ELBO; where "
        "particles are more than averaged, leave out whole=False",
    )
    return f"averaged, within {off:.1e} nats of the ELBO"


LAWS = (
    log_weights_are_of_the_draws,
    bound_is_on_its_side,
    bound_is_that_of_its_log_weights,
    more_particles_tighten_the_bound,
    one_particle_is_the_elbo,
    partial_draws_are_only_averaged,
)
