"""The exam of a prior that has an energy: what training by persistent chains and annealing rest on."""

import torch

from unibound.errors import UsageError
from unibound.testing.laws.prior import NUM_DRAWS, Subject
from unibound.testing.verdict import FALSE_ALARM, TOLERANCE, demand, gap, in_words, mean_and_error
from unibound.testing.worlds import gradients, parameter_groups

BETAS = (0.0, 0.4, 1.0)
NOT_ENERGY = "does not apply: it has no energy over bits"


def value_is_minus_free_energy(subject: Subject) -> str:
    """log_prob is -F_1, in training and in evaluation; in evaluation its gradient is that of -F alone."""
    prior, taus = subject.energy_prior(), subject.taus
    if prior is None:
        return NOT_ENERGY
    free = prior.free_energy(taus)
    off = gap(prior.free_energy(taus, 1.0), free)
    demand(off <= TOLERANCE, f"free_energy at beta = 1 is {off:.3g} nats off the default")
    for mode in (True, False):
        off = gap(prior.train(mode).log_prob(taus), -free)
        demand(off <= TOLERANCE, f"log_prob is {off:.3g} nats off -free_energy (training = {mode})")
    groups = parameter_groups({"prior": prior})
    plain, evaluated = (gradients(value[-1], groups)["prior"] for value in (-free, prior.log_prob(taus)))
    prior.train()
    demand(gap(plain, evaluated) <= TOLERANCE, "in evaluation mode log_prob still has a negative phase")
    return "-F in both modes"


def enumeration_sums_to_z(subject: Subject) -> str:
    """`enumeration` lists states whose weights sum to the same Z as -F over every latent."""
    prior = subject.energy_prior()
    if prior is None:
        return NOT_ENERGY
    states = prior.enumeration()
    index = torch.arange(1 << states.num_bits).unsqueeze(1)
    got = states.log_f((index >> torch.arange(states.num_bits) & 1).double()).logsumexp(0)
    exact = (-prior.free_energy(subject.taus)).logsumexp(0)
    demand(gap(got, exact) <= TOLERANCE, f"log Z is {exact:.9f}, and enumeration sums to {got:.9f}")
    return f"log Z = {exact:.6f} both ways"


def base_is_known(subject: Subject) -> str:
    """At beta = 0, base_log_z is the log of the sum of exp(-F_0), and base_sample draws from it."""
    prior = subject.energy_prior()
    if prior is None:
        return NOT_ENERGY
    log_f = -prior.free_energy(subject.taus, 0.0).detach()
    off = abs(prior.base_log_z() - log_f.logsumexp(0).item())
    demand(
        off <= TOLERANCE,
        f"base_log_z is {prior.base_log_z():.9f}, and exp(-F_0) sums to {log_f.logsumexp(0).item():.9f}, log; are "
        "summed-out units forgotten (2^H states each)?",
    )
    statistic, limit = subject.fits(prior.base_sample(NUM_DRAWS), log_f.softmax(0))
    demand(statistic <= limit, f"base_sample is not from exp(-F_0): chi-square {statistic:.1f}, limit {limit:.1f}")
    return f"off by {off:.1e} nats; chi-square of draws {statistic:.1f}, limit {limit:.1f}"


def base_is_fitted(subject: Subject) -> str:
    """fit_base moves the base distribution towards the draws it is given, and base_log_z follows."""
    prior, taus = subject.energy_prior(), subject.taus
    if prior is None:
        return NOT_ENERGY
    draws = taus[torch.tensor([7, 7, 7, 3, 1, 5])]

    def mean_log_p() -> float:
        return -prior.free_energy(draws, 0.0).mean().item() - prior.base_log_z()

    prior.fit_base(1 - draws)
    away = mean_log_p()
    prior.fit_base(draws)
    off = abs(prior.base_log_z() - (-prior.free_energy(taus, 0.0)).logsumexp(0).item())
    demand(off <= TOLERANCE, f"after fit_base, base_log_z is {off:.3g} nats off")
    demand(mean_log_p() > away, f"fitted to draws, p_0 gives them {mean_log_p():.4g} nats; fitted away, {away:.4g}")
    return f"mean log p_0 of draws rises from {away:.4g} to {mean_log_p():.4g} nats"


def gibbs_leaves_p_beta_invariant(subject: Subject) -> str:
    """Exact draws from p_beta are still draws from p_beta after a transition, and do move."""
    prior = subject.energy_prior()
    if prior is None:
        return NOT_ENERGY
    numbers = {}
    for beta in BETAS:
        probability = (-prior.free_energy(subject.taus, beta).detach()).softmax(0)
        start = subject.taus[probability.multinomial(NUM_DRAWS, replacement=True)]
        kept = start.clone()
        for steps in (1, 3):
            end = prior.gibbs(start, steps, beta)
            demand(torch.equal(start, kept), "gibbs changes the states it is given; return a new tensor")
            demand(not end.requires_grad, "gibbs returns states with a gradient; detach them")
            statistic, limit = subject.fits(end, probability)
            demand(
                statistic <= limit,
                f"{steps} transitions at beta = {beta} carry draws of p_beta away from it: chi-square {statistic:.1f} "
                f"of {NUM_DRAWS} chains, limit {limit:.1f}; does beta, or base_bias, enter gibbs as in free_energy?",
            )
            demand(not torch.equal(end, start), f"{steps} transitions at beta = {beta} move no chain")
            numbers[f"beta {beta} steps {steps}"] = statistic
    return f"chi-square with 7 degrees of freedom: {in_words(numbers)}"


def transitions_are_what_gibbs_does(subject: Subject) -> str:
    """log_transition, where it can tell, has rows that sum to one, keeps p, and gibbs draws from it."""
    prior, taus = subject.energy_prior(), subject.taus
    if prior is None:
        return NOT_ENERGY
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
        statistic, limit = subject.fits(prior.gibbs(start.expand(NUM_DRAWS, *start.shape), 1), row)
        demand(statistic <= limit, f"gibbs and log_transition disagree: chi-square {statistic:.1f}, limit {limit:.1f}")
        worst = max(worst, statistic)
    return f"p is kept within {off:.1e}; largest chi-square {worst:.1f}"


def chains_advance(subject: Subject) -> str:
    """advance moves the chains, persistent reads them as they stand, and neither changes their form."""
    prior = subject.energy_prior()
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
    prior, taus = subject.energy_prior(), subject.taus
    if prior is None:
        return NOT_ENERGY
    betas = torch.tensor([0.0, 0.2, 0.55, 1.0], dtype=torch.float64)
    log_z = (-prior.free_energy(taus)).logsumexp(0).item()
    ratio = log_z - prior.base_log_z()
    exact = (-prior.free_energy(taus).detach()).softmax(0).multinomial(NUM_DRAWS, replacement=True)
    numbers = {}
    for way, start, schedule, expected in (
        ("up", prior.base_sample(NUM_DRAWS), betas, ratio),
        ("down", taus[exact], betas.flip(0), -ratio),
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
    gibbs_leaves_p_beta_invariant,
    transitions_are_what_gibbs_does,
    chains_advance,
    annealed_weight_is_a_ratio_of_z,
)
