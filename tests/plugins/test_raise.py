"""RAISE: unbiased for the annealing model, state by state and in an evaluation, and never a bound on log p."""

import pytest
import torch
from annealed import Worked, p_ann, random_rbm, tiny_rbm
from unibound_plugins.partition.raise_ import Raise

from unibound import UsageError
from unibound.evaluation.evaluate import evaluate
from unibound.evaluation.tally import Tally
from unibound.partition import annealing, schedules
from unibound.testing.listing import all_bits
from unibound.testing.priors import Rates
from unibound.testing.verdict import FALSE_ALARM
from unibound.testing.worlds import World


def test_the_expected_estimate_is_the_annealing_model_for_every_state():
    worked = Worked()
    log_p_hat = worked.log_f[worked.end] - worked.prior.base_log_z() - worked.log_w
    expected = torch.zeros(4, dtype=torch.float64)
    expected.index_add_(0, worked.end, worked.backward * log_p_hat.exp())
    exact = p_ann(worked.prior, worked.betas.tolist())
    assert exact.sum().item() == pytest.approx(1, abs=1e-12)
    assert torch.allclose(expected, exact, atol=1e-12)
    forward = torch.zeros(4, dtype=torch.float64).index_add_(0, worked.end, worked.probability)
    assert torch.allclose(forward, exact, atol=1e-12)


def test_the_expected_logarithm_is_below_that_of_the_annealing_model():
    worked = Worked()
    log_p_hat = worked.log_f[worked.end] - worked.prior.base_log_z() - worked.log_w
    mean = torch.zeros(4, dtype=torch.float64).index_add_(0, worked.end, worked.backward * log_p_hat)
    assert (mean < p_ann(worked.prior, worked.betas.tolist()).log()).all()


def test_the_annealing_model_can_exceed_the_model():
    # Why log_prob is never called a bound on log p: with few temperatures p_ann is another distribution.
    worked = Worked()
    log_p = worked.log_f - worked.log_z
    assert (p_ann(worked.prior, worked.betas.tolist()).log() > log_p + 0.1).any()


def test_chains_of_the_plugin_are_unbiased():
    torch.manual_seed(0)
    prior, states, betas = tiny_rbm(), all_bits((2,)), (0.0, 0.3, 0.7, 1.0)
    raised = Raise(betas=betas).fit(prior)
    draws = raised.log_prob(states.repeat(4000, 1)).detach().view(-1, 4).exp()  # [4000, 4]
    exact, stderr = p_ann(prior, list(betas)), draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - exact).abs() < FALSE_ALARM * stderr).all()
    assert (raised.side, raised.of, raised.log_z) == ("lower", "log p_ann", None)


def test_more_chains_bring_the_estimate_up():
    torch.manual_seed(0)
    rbm = random_rbm(4, 8, 6, scale=1.5)
    tau = rbm.gibbs(rbm.persistent(400), 50)
    one, many = (Raise(num_chains=count, num_temperatures=10).fit(rbm).log_prob(tau).detach() for count in (1, 20))
    assert one.mean() < many.mean() < torch.tensor(0.0)


@pytest.mark.parametrize("num_draws", [1, 3])
def test_an_evaluation_that_anneals_few_particles_is_unbiased(num_draws: int):
    # p_ann(x) from 5 particles in chunks of 2, 2 and 1, of which only some are annealed.
    torch.manual_seed(1)
    rbm, betas, repeats = tiny_rbm(), (0.0, 0.4, 1.0), 4000
    world = World.of_bits(prior=rbm)
    joint = world.joint.eval()
    exact = (p_ann(rbm, list(betas)).unsqueeze(1) * likelihoods(world)).sum(0)  # [N]
    raised = Raise(betas=betas, num_draws=num_draws).fit(rbm)
    x = world.xs.repeat(repeats, 1)
    with torch.no_grad():
        tally = Tally(raised, 5)
        for half in x.split(len(x) // 2):
            tally.begin(half)
            for count in (2, 2, 1):
                particles = joint.particles(half, count)
                tally.add(particles.tau, particles.log_weights.double())
        estimates = tally.close()[0].exp().view(repeats, -1)  # [R, N]
    stderr = estimates.std(0) / repeats**0.5
    assert ((estimates.mean(0) - exact).abs() < FALSE_ALARM * stderr).all()


def likelihoods(world: World) -> torch.Tensor:
    """p(x | tau) of every latent and datum [S, N]."""
    tau = world.taus.unsqueeze(1).expand(-1, len(world.xs), -1)
    return world.p.generator(tau).log_prob(world.xs).exp().detach()


def test_what_an_evaluation_says_of_it():
    torch.manual_seed(0)
    world = World.of_bits(prior=tiny_rbm())
    raised = Raise(num_temperatures=5).fit(world.p.prior)
    result = evaluate(world.joint, world.xs, num_particles=50, normalized=raised)
    assert (result.of, result.side, result.log_z) == ("log p_ann", "upper", None)
    assert result.interval.low is None
    assert "annealing model" in result.conclusion
    assert "no bound" in result.conclusion


def test_bad_input():
    with pytest.raises(UsageError, match="EnergyPrior"):
        Raise().fit(Rates((3,)))
    with pytest.raises(UsageError, match="num_draws"):
        Raise(num_draws=0)
    with pytest.raises(UsageError, match="at least 1 state"):
        annealing.reverse(random_rbm(0), torch.zeros(0, 5), schedules.make("linear", 3))
