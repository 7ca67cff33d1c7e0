"""The exam of a prior that has an energy: what training by persistent chains and annealing rest on."""

import torch

from unibound.energies.tempering import swap
from unibound.errors import UsageError
from unibound.partition import enumeration
from unibound.support import describe
from unibound.testing.laws.prior import NUM_DRAWS, Subject
from unibound.testing.listing import number
from unibound.testing.verdict import (
    FALSE_ALARM,
    TOLERANCE,
    LawBroken,
    chi_square,
    demand,
    gap,
    in_words,
    mean_and_error,
)

BETAS = (0.0, 0.4, 1.0)
NOT_ENERGY = "does not apply: it has no energy"


def value_is_minus_free_energy(subject: Subject) -> str:
    """log_prob is -F_1, in training and in evaluation; in evaluation it refuses the gradient that it cannot give."""
    prior, taus = subject.energy_prior, subject.taus
    if prior is None:
        return NOT_ENERGY
    free = prior.free_energy(taus)
    off = gap(prior.free_energy(taus, 1.0), free)
    demand(off <= TOLERANCE, f"free_energy at beta = 1 is {off:.3g} nats off the default")
    for mode in (True, False):
        off = gap(prior.train(mode).log_prob(taus), -free)
        demand(off <= TOLERANCE, f"log_prob is {off:.3g} nats off -free_energy (training = {mode})")
    refused = "it has no parameters"
    if any(True for _ in prior.parameters()):
        try:
            prior.log_prob(taus).sum().backward()
        except UsageError as error:
            refused = str(error)
        else:
            raise LawBroken("in evaluation mode log_prob gives the gradient of -F for that of log p, without a word")
        finally:
            prior.zero_grad()
            prior.train()
    return f"-F in both modes; in evaluation: {refused}"


def enumeration_sums_to_z(subject: Subject) -> str:
    """`enumeration`, where there is one, lists states whose weights sum to the same Z as exp(-F) over every latent."""
    prior = subject.energy_prior
    if prior is None:
        return NOT_ENERGY
    states = prior.enumeration()
    if states is None:
        return "does not apply: it lists none"
    index = torch.arange(states.base**states.num_digits).unsqueeze(1)
    digits = index // states.base ** torch.arange(states.num_digits) % states.base
    got = states.log_f(digits.double()).logsumexp(0)
    exact = (subject.log_measure - prior.free_energy(subject.taus)).logsumexp(0)
    demand(gap(got, exact) <= subject.tolerance, f"log Z is {exact:.9f}, and enumeration sums to {got:.9f}")
    if states.draw is not None:
        statistic, limit, what = subject.fit(enumeration.draw(prior, NUM_DRAWS), subject.log_p(1.0))
        demand(statistic <= limit, f"draws by the listing do not follow p: {what}")
    return f"log Z = {exact:.6f} both ways"


def base_is_known(subject: Subject) -> str:
    """At beta = 0, base_log_z is the log of the sum of exp(-F_0), and base_sample draws from it."""
    prior = subject.energy_prior
    if prior is None:
        return NOT_ENERGY
    log_f = (subject.log_measure - prior.free_energy(subject.taus, 0.0)).detach()
    off = abs(prior.base_log_z() - log_f.logsumexp(0).item())
    demand(
        off <= subject.tolerance,
        f"base_log_z is {prior.base_log_z():.9f}, and exp(-F_0) sums to {log_f.logsumexp(0).item():.9f}, log; are "
        "summed-out units forgotten (2^H states each)?",
    )
    statistic, limit, what = subject.fit(prior.base_sample(NUM_DRAWS), log_f.log_softmax(0))
    demand(statistic <= limit, f"base_sample is not from exp(-F_0): {what}")
    return f"off by {off:.1e} nats; {what}"


def base_is_fitted(subject: Subject) -> str:
    """fit_base moves the base distribution towards the draws it is given, and base_log_z follows."""
    prior, taus = subject.energy_prior, subject.taus
    if prior is None:
        return NOT_ENERGY
    last = len(taus) - 1
    near, far = torch.tensor([[last, last, last, 3 * last // 7, last // 7, 5 * last // 7]] * 2).unbind()
    draws, others = (taus[near], taus[last - far]) if subject.listed else (taus[:6] * 0 + 1, taus[:6] * 0 - 1)

    def mean_log_p() -> float:
        return -prior.free_energy(draws, 0.0).mean().item() - prior.base_log_z()

    prior.fit_base(others)
    away = mean_log_p()
    prior.fit_base(draws)
    off = abs(prior.base_log_z() - (subject.log_measure - prior.free_energy(taus, 0.0)).logsumexp(0).item())
    demand(off <= subject.tolerance, f"after fit_base, base_log_z is {off:.3g} nats off")
    demand(mean_log_p() > away, f"fitted to draws, p_0 gives them {mean_log_p():.4g} nats; fitted away, {away:.4g}")
    return f"mean log p_0 of draws rises from {away:.4g} to {mean_log_p():.4g} nats"


def moves_leave_p_beta_invariant(subject: Subject) -> str:
    """Exact draws from p_beta are still draws from p_beta after moves, and do move."""
    prior = subject.energy_prior
    if prior is None:
        return NOT_ENERGY
    numbers, limit = {}, 0.0
    for beta in BETAS:
        log_p = subject.log_p(beta)
        start = subject.draws(beta, NUM_DRAWS)
        kept = start.clone()
        for steps in (1, 3):
            end = prior.move(start, steps, beta)
            demand(torch.equal(start, kept), "a move changes the states it is given; return a new tensor")
            demand(not end.requires_grad, "a move returns states with a gradient; detach them")
            statistic, limit, what = subject.fit(end, log_p)
            demand(
                statistic <= limit,
                f"{steps} transitions at beta = {beta} carry draws of p_beta away from it: {what}; does beta, or the "
                "base, enter gibbs as in free_energy?",
            )
            demand(not torch.equal(end, start), f"{steps} transitions at beta = {beta} move no chain")
            numbers[f"beta {beta} steps {steps}"] = statistic
    return f"statistics, limit {limit:.3g}: {in_words(numbers)}"


def swaps_leave_replicas_invariant(subject: Subject) -> str:
    """Independent exact draws at two temperatures are such still after replicas were offered to swap."""
    prior = subject.energy_prior
    if prior is None:
        return NOT_ENERGY
    betas = (0.0, 0.5, 1.0)
    states, taken = swap(prior, torch.stack([subject.draws(beta, NUM_DRAWS) for beta in betas]), betas)
    demand(states.shape[:2] == (3, NUM_DRAWS) and taken.shape == (2, NUM_DRAWS), "swap loses chains")
    limit, numbers = 0.0, {"share that swapped": taken.double().mean().item()}
    for beta, ends in zip(betas, states, strict=True):
        statistic, limit, what = subject.fit(ends, subject.log_p(beta))
        demand(
            statistic <= limit, f"swaps carry the replica at beta = {beta} away from p_beta: {what}; is F_beta used?"
        )
        numbers[f"beta {beta}"] = statistic
    if subject.listed:
        low, high = (number(ends.flatten(1), prior.support) for ends in states[1:])
        together = (subject.log_p(0.5).unsqueeze(1) + subject.log_p(1.0)).detach().exp().flatten()
        statistic, limit = chi_square(low * len(subject.taus) + high, together)
        demand(statistic <= limit, f"after swaps the replicas depend on each other: chi-square {statistic:.1f}")
        numbers["both together"] = statistic
    return f"statistics, limit {limit:.3g}: {in_words(numbers)}"


def transitions_are_what_gibbs_does(subject: Subject) -> str:
    """log_transition, where it can tell, has rows that sum to one, keeps p, and gibbs draws from it."""
    prior, taus = subject.energy_prior, subject.taus
    if prior is None:
        return NOT_ENERGY
    if not subject.listed:
        return f"does not apply: the transitions of {describe(prior.support)} cannot be listed"
    try:
        transition = prior.log_transition(taus).exp().detach()  # [S, S]
    except UsageError as error:
        return f"does not apply: {error}"
    probability = (-prior.free_energy(taus).detach()).softmax(0)
    off = gap(transition.sum(1), torch.ones(len(taus)))
    demand(off <= TOLERANCE, f"the transitions from a state sum to one but for {off:.3g}")
    off = gap(probability @ transition, probability)
    demand(off <= TOLERANCE, f"a transition changes p by {off:.3g}; p must be invariant")
    worst = 0.0
    for start, row in zip(taus, transition, strict=True):
        statistic, limit, what = subject.fit(prior.gibbs(start.expand(NUM_DRAWS, *start.shape), 1), row.log())
        demand(statistic <= limit, f"gibbs and log_transition disagree: {what}")
        worst = max(worst, statistic)
    return f"p is kept within {off:.1e}; largest chi-square {worst:.1f}"


def chains_advance(subject: Subject) -> str:
    """advance moves the chains, persistent reads them as they stand, and neither changes their form."""
    prior = subject.energy_prior
    if prior is None:
        return NOT_ENERGY
    before = prior.chains.clone()
    read = prior.persistent(3)
    demand(torch.equal(prior.chains, before), "persistent moves the chains; it should read them as they stand")
    rows = (read.unsqueeze(1) == before).flatten(2).all(2).any(1)
    demand(bool(rows.all()), "persistent returns states that no chain is in")
    for _ in range(20):
        prior.advance()
        demand(prior.chains.shape == before.shape, f"advance made chains of shape {list(prior.chains.shape)}")
        demand(prior.chains.dtype == before.dtype, f"advance made chains of {prior.chains.dtype}")
    demand("chains" in prior.state_dict(), "chains are not in the state dict")
    demand(not torch.equal(prior.chains, before), "20 advances moved no chain")
    return f"{len(before)} chains"


def annealed_weight_is_a_ratio_of_z(subject: Subject) -> str:
    """E[exp(log_w)] of `anneal` is Z_1 / Z_0 going up from p_0, and Z_0 / Z_1 going down from p_1."""
    prior, taus = subject.energy_prior, subject.taus
    if prior is None:
        return NOT_ENERGY
    betas = torch.tensor([0.0, 0.2, 0.55, 1.0], dtype=torch.float64)
    if not subject.listed:  # over reals weights have a variance only if the base is as wide as the model
        prior.fit_base(subject.draws(1.0, NUM_DRAWS))
    log_z = (subject.log_measure - prior.free_energy(taus)).logsumexp(0).item()
    ratio = log_z - prior.base_log_z()
    numbers = {}
    for way, start, schedule, expected in (
        ("up", prior.base_sample(NUM_DRAWS), betas, ratio),
        ("down", subject.draws(1.0, NUM_DRAWS), betas.flip(0), -ratio),
    ):
        kept = start.clone()
        end, log_w = prior.anneal(start, schedule)
        demand(torch.equal(start, kept), "anneal changes the states it is given")
        demand(end.shape == start.shape and log_w.shape == (NUM_DRAWS,), "anneal returns states [M, *Z] and log_w [M]")
        demand(log_w.dtype == torch.float64, f"log_w is summed in {log_w.dtype}; long sums need float64")
        mean, error = mean_and_error((log_w - expected).exp())
        numbers[way] = (mean - 1) / error
        demand(
            abs(mean - 1) <= FALSE_ALARM * error,
            f"going {way}, the mean weight is {mean:.4f} +- {error:.4f} times what it should be; is the weight taken "
            "on the wrong side of the transition?",
        )
    return f"in standard errors: {in_words(numbers)}"


LAWS = (
    value_is_minus_free_energy,
    enumeration_sums_to_z,
    base_is_known,
    base_is_fitted,
    moves_leave_p_beta_invariant,
    swaps_leave_replicas_invariant,
    transitions_are_what_gibbs_does,
    chains_advance,
    annealed_weight_is_a_ratio_of_z,
)
