"""SGVB: the evidence lower bound with reparameterized gradients, as in a variational autoencoder."""

from typing import ClassVar

import attrs
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from unibound import Directed, Estimate, Estimator, JointBound, UsageError, hookimpl


def explicit_prior(joint: JointBound) -> Distribution:
    """p(tau) as a torch distribution; UsageError if it is none."""
    prior = joint.p.prior.distribution() if isinstance(joint.p, Directed) else None
    if prior is None:
        raise UsageError("sgvb's analytic_kl needs a prior that is a distribution, such as gaussian; leave it out")
    return prior


@attrs.frozen
class SGVB(Estimator):
    """Evidence lower bound, differentiated through the draw.

        ELBO(x) = E_q[log p*(x, tau) - log q(tau | x)] = log p*(x) - KL(q(tau | x) || p(tau | x))
                = E_q[log p(x | tau)] - KL(q(tau | x) || p(tau))

    With `analytic_kl` the last KL is computed and not sampled, prior's gradient included: the same
    expectation. That lowers the variance as a rule, but raises it where q is nearly the posterior.

    Args:
        num_particles: draws per datum, averaged; they lower the variance and leave the bound as it is.
        analytic_kl: take KL(q(tau | x) || p(tau)) in closed form, where torch knows one.

    Source: Kingma and Welling, "Auto-encoding variational Bayes" (2014), https://arxiv.org/abs/1312.6114
    """

    needs: ClassVar[str] = "a q with reparameterized samples; any p that is differentiable in tau"

    num_particles: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    analytic_kl: bool = False

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        particles = joint.particles(x, self.num_particles, reparameterized=True, whole=False)
        log_w = particles.log_weights  # [K, B]
        elbo = log_w.mean(0)  # [B]
        if self.analytic_kl:
            prior = explicit_prior(joint)
            log_likelihood = particles.log_p - prior.log_prob(particles.tau)  # [K, B]
            assert particles.posterior is not None
            elbo = log_likelihood.mean(0) - kl_divergence(particles.posterior, prior)
        return Estimate(-elbo, elbo.detach(), log_w.detach(), side="lower")

    def check(self, joint: JointBound, x: Tensor) -> None:
        posterior = joint.q(x)
        if not posterior.has_rsample:
            raise UsageError(
                f"sgvb needs reparameterized samples, but q(tau | x) is {type(posterior).__name__}; "
                "use vimco, or a prior over reals"
            )
        if self.analytic_kl:
            try:
                kl_divergence(posterior, explicit_prior(joint))
            except NotImplementedError as error:
                raise UsageError(
                    "sgvb's analytic_kl needs a KL(q(tau | x) || p(tau)) in closed form, and torch knows none between "
                    "these two; leave the option out, or use posterior gaussian"
                ) from error


@hookimpl
def register_estimators(register):
    register("sgvb", SGVB)
