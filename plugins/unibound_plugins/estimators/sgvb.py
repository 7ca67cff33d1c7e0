"""SGVB: the evidence lower bound with reparameterized gradients, as in a variational autoencoder."""

import math
from typing import ClassVar

import attrs
import torch
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

    Training may climb something else, so that q does not give layers up before p has learned to use them. With C_l
    what layer l of q pays, log q - log p averaged over the draws of a datum:

        surrogate:  log p(x | tau) - kl_weight * sum_l max(C_l, free_bits)

    The bound and the log-weights stay those of the ELBO, and the gradient is declared biased for it. Warming up is a
    stage with a smaller weight, or several, before one with weight 1.

    Args:
        num_particles: draws per datum, averaged; they lower the variance and leave the bound as it is.
        analytic_kl: take KL(q(tau | x) || p(tau)) in closed form, where torch knows one.
        kl_weight: what the surrogate multiplies the divergence from the prior by; 1 is the ELBO.
        free_bits: nats of each layer and datum below which the surrogate does not push its divergence.

    Source: Kingma and Welling, "Auto-encoding variational Bayes" (2014), https://arxiv.org/abs/1312.6114; the weight,
    Bowman et al., "Generating sentences from a continuous space" (2016), https://arxiv.org/abs/1511.06349; free bits,
    Kingma et al., "Improving variational inference with inverse autoregressive flow" (2016),
    https://arxiv.org/abs/1606.04934, where they are of an average over the batch; here of a datum
    """

    needs: ClassVar[str] = "a q with reparameterized samples; any p that is differentiable in tau"

    num_particles: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    analytic_kl: bool = False
    kl_weight: float = attrs.field(
        default=1.0, validator=[attrs.validators.ge(0.0), attrs.validators.le(1.0)], metadata={"variants": (0.3,)}
    )
    free_bits: float = attrs.field(
        default=0.0, validator=[attrs.validators.ge(0.0), attrs.validators.lt(math.inf)], metadata={"variants": (0.7,)}
    )

    def __attrs_post_init__(self) -> None:
        if self.analytic_kl and self.eased:
            raise UsageError("sgvb's kl_weight and free_bits are of a sampled divergence; leave analytic_kl out")

    @property
    def eased(self) -> bool:
        """Whether the surrogate is another than that of the ELBO."""
        return self.kl_weight < 1 or self.free_bits > 0

    @property
    def unbiased(self) -> frozenset[str]:
        # p(x | tau) alone keeps its gradient, but the generator of layers has those between, too.
        return frozenset() if self.eased else super().unbiased

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        particles = joint.particles(x, self.num_particles, reparameterized=True, whole=False, by_layer=self.eased)
        log_w = particles.log_weights  # [K, B]
        elbo = log_w.mean(0)  # [B]
        if self.analytic_kl:
            prior = explicit_prior(joint)
            log_likelihood = particles.log_p - prior.log_prob(particles.tau)  # [K, B]
            assert particles.posterior is not None
            elbo = log_likelihood.mean(0) - kl_divergence(particles.posterior, prior)
        surrogate = -elbo
        if particles.layers is not None:  # [L + 1, K, B]
            log_likelihood, *added = particles.layers.log_weights.mean(1)
            paid = -torch.stack(added)  # [L, B]
            # A floor of 0 would be one, too: what a datum pays on a few draws may be negative.
            floored = paid.clamp(min=self.free_bits) if self.free_bits > 0 else paid
            surrogate = self.kl_weight * floored.sum(0) - log_likelihood
        return Estimate(surrogate, elbo.detach(), log_w.detach(), side="lower")

    def check(self, joint: JointBound, x: Tensor) -> None:
        posterior = joint.q(x)
        if not posterior.has_rsample:
            raise UsageError(
                f"sgvb needs reparameterized samples, but q(tau | x) is {type(posterior).__name__}; "
                "use vimco, or a prior over reals"
            )
        with torch.random.fork_rng():  # a look leaves training as it is
            alone = self.eased and (joint.draws_terms(x) or len(joint.p.log_terms(x, posterior.sample((1,)))) == 1)
        if alone:
            raise UsageError(
                "sgvb's kl_weight and free_bits need a p that tells p(x | tau) from p(tau), and whole draws; "
                "leave them out, or use model ladder or mlp"
            )
        if self.free_bits > 0 and joint.p.unnormalized is not None:
            raise UsageError(
                "sgvb's free_bits are nats of a divergence, and one from an unnormalized prior lacks log Z; "
                "use kl_weight, or prior gaussian"
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
