"""Contrastive divergence: an energy prior learns to tell data from where a short chain takes them."""

from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor

from unibound import EnergyPrior, Estimate, Estimator, JointBound, UsageError, hookimpl

MAX_BITS = 10  # of the states that the policy gradient lists; their transitions are the square of it


def joint_divergence(prior: EnergyPrior, tau: Tensor, steps: int) -> Tensor:
    """KL_x + H(D) of the chain, one term per datum, with its whole gradient.

        mean over the batch = E_D F(x_0) - E F(x_k) + H(p_k) >= -E_D log p_dir(x_0)

    p_k is the exact distribution of the chain's end, its beginning drawn from the batch. It bounds the
    likelihood of the directed model p_dir, the chain run backwards from p_k; it is never a bound on that
    of the prior itself, whose negative log-likelihood it stays below by KL(p_k || p).

    Args:
        prior: small enough to be listed.
        tau: where the chains begin [B, *Z], all of D.
        steps: Gibbs steps k.

    Returns:
        [B] nats.

    Source: Hinton, "Training products of experts by minimizing contrastive divergence" (2002),
    https://www.cs.toronto.edu/~hinton/absps/tr00-004.pdf
    """
    powers = 1 << torch.arange(prior.state_shape.numel(), device=tau.device)
    states = (torch.arange(1 << len(powers), device=tau.device).unsqueeze(1) & powers > 0).to(tau.dtype)  # [S, Z]
    states = states.view(-1, *prior.state_shape)
    transition = prior.log_transition(states).exp()  # [S, S]
    end = torch.eye(len(states), dtype=tau.dtype, device=tau.device)[(tau.flatten(1).long() * powers).sum(1)]  # [B, S]
    for _ in range(steps):
        end = end @ transition
    # Held still, and the gradient of H(p_k) is whole: that of log p_k is zero in expectation.
    log_end = end.detach().mean(0).clamp_min(torch.finfo(tau.dtype).tiny).log()  # [S]
    return prior.free_energy(tau) - end @ (prior.free_energy(states) + log_end)


@attrs.frozen
class CD(Estimator):
    """Difference of free energies between data and the ends of short chains that begin at them.

        surrogate = F(x_0) - F(x_k),  gradient = E_D[dF(x_0)] - E_{p_k}[dF(x_k)]

    where x_0 ~ q(tau | x), detached, and x_k is drawn by k Gibbs steps from it (CD-k), or is the state of
    the prior's persistent chains (PCD-k). Only the prior learns; data themselves are x_0 with the model
    `identity`. CD-k approaches maximum likelihood as k grows. It leaves out how x_k depends on the
    weights, so it is the gradient of no function; `policy_gradient` puts that back, by listing p_k:

        KL_x = KL(D || p) - KL(p_k || p)

    No bound is claimed. The gap F(x_0) - F(x_k) is not a likelihood, and the joint bound that KL_x
    amounts to is of another, directed model; see `joint_divergence`.

    Args:
        steps: Gibbs steps k from the data. Persistent chains move by the prior's own `steps`.
        chain: where negative samples come from: chains that begin at the data, or persistent ones.
        policy_gradient: the whole gradient of KL_x, with the batch as D. For a small rbm.
        layer: of an energy of layers (dbm), the one that is trained with that below it as a machine of their own, by
            chains that begin at data: a stage each, from 1, to begin with. 0 trains the whole.

    Source: Hinton, "Training products of experts by minimizing contrastive divergence" (2002),
    https://www.cs.toronto.edu/~hinton/absps/tr00-004.pdf; Tieleman, "Training restricted Boltzmann
    machines using approximations to the likelihood gradient" (2008), https://www.cs.toronto.edu/~tijmen/pcd/pcd.pdf
    """

    needs: ClassVar[str] = "an energy prior; any q"

    steps: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    chain: Literal["data", "persistent"] = "data"
    policy_gradient: bool = False
    layer: int = attrs.field(default=0, validator=attrs.validators.ge(0))

    @property
    def untrained(self) -> frozenset[str]:
        return frozenset({"q", "generator"})

    @property
    def unbiased(self) -> frozenset[str]:
        return frozenset()

    @property
    def persistent(self) -> bool:
        return self.chain == "persistent"

    def __call__(self, joint: JointBound, x: Tensor) -> Estimate:
        prior = _energy_prior(joint)
        with torch.no_grad():
            tau = joint.p.state(x, joint.q(x).sample())  # [B, *Z]
        if self.policy_gradient:
            surrogate = joint_divergence(prior, tau, self.steps)  # [B]
        elif self.persistent:
            positive, negative = prior.free_energy(torch.cat([tau, prior.chains])).tensor_split([len(tau)])
            surrogate = positive - negative.mean()
        else:
            positive, negative = prior.contrast(tau, self.steps, self.layer)  # [B] twice
            surrogate = positive - negative
        return Estimate(surrogate, bound=None, log_weights=None, side="none")

    def check(self, joint: JointBound, x: Tensor) -> None:
        prior = _energy_prior(joint)
        if self.layer:
            if self.persistent or self.policy_gradient:
                raise UsageError(
                    "cd: a layer alone is trained by chains that begin at data; set chain = data, or layer = 0"
                )
            with torch.no_grad(), torch.random.fork_rng():
                prior.contrast(joint.p.state(x, joint.q(x).sample()), 1, self.layer)
        joint.q(x)
        if self.persistent and (self.policy_gradient or self.steps not in (1, prior.steps)):
            cure = "leave policy_gradient out" if self.policy_gradient else f"set steps = {self.steps} on the prior"
            raise UsageError(f"cd: persistent chains move by the prior's own steps, {prior.steps}; {cure}")
        if self.policy_gradient:
            if (size := prior.state_shape.numel()) > MAX_BITS:
                raise UsageError(f"cd: policy_gradient lists 2^{size} states, more than 2^{MAX_BITS}; leave it out")
            prior.log_transition(prior.chains[:1])


def _energy_prior(joint: JointBound) -> EnergyPrior:
    prior = joint.p.unnormalized
    if not isinstance(prior, EnergyPrior):
        raise UsageError("cd trains the energy of a prior, and this one has none; use vimco or sgvb, or prior rbm")
    return prior


@hookimpl
def register_estimators(register):
    register("cd", CD)
