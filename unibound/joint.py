"""The two joints every method coaxes into agreement: q(x, tau) = D(x) q(tau | x) and p(x, tau).

Shapes: K particles, B batch, *X one datum, *Z one latent, M chains. Everything is in nats.
"""

import attrs
import torch
from torch import Tensor, nn

from unibound.generation import Generation
from unibound.networks import Inference


@attrs.frozen(eq=False)
class Particles:
    """K latents per datum, drawn from q(tau | x).

    Args:
        tau: latents [K, B, *Z].
        log_q: log q(tau | x) [K, B], nats.
        log_p: log p*(x, tau) [K, B], nats.
    """

    tau: Tensor
    log_q: Tensor
    log_p: Tensor

    @property
    def log_weights(self) -> Tensor:
        """log w = log p*(x, tau) - log q(tau | x)  [K, B], nats; per datum, never summed over the batch."""
        return self.log_p - self.log_q


@attrs.frozen
class Divergence:
    """The identity the project is named for, in nats: bound = kl - E_D[log D(x)] >= nll = E_D[-log p(x)]."""

    kl: float
    bound: float
    nll: float


class JointBound(nn.Module):
    """q(x, tau) = D(x) q(tau | x) against p(x, tau).

        KL(q(x, tau) || p(x, tau)) = KL(D(x) || p(x)) + E_D KL(q(tau | x) || p(tau | x))

    so KL(q || p) - E_D[log D] is an upper bound on E_D[-log p(x)], tight where q is the posterior.
    log D cancels, and is never asked for: an estimator sees only `particles` (and dreams of p).

    Args:
        q: the inference network.
        p: the generative model.

    Source: Bachman and Precup, "Training deep generative models: variations on a theme" (2015).
    """

    def __init__(self, q: Inference, p: Generation) -> None:
        super().__init__()
        self.q = q
        self.p = p
        self.auxiliary: nn.Module | None = None  # parameters an estimator asked for; see Estimator.auxiliary

    def particles(self, x: Tensor, k: int, *, reparameterized: bool = False, path_only: bool = False) -> Particles:
        """Draw k latents per datum of x [B, *X] and score them under both joints.

        Args:
            x: data [B, *X].
            k: number of particles K.
            reparameterized: let gradients flow through the draw (`rsample`); otherwise tau is detached.
            path_only: let log_q depend on q's parameters through tau alone, without the score.
        """
        posterior = self.q(x)
        tau = posterior.rsample((k,)) if reparameterized else posterior.sample((k,))  # [K, B, *Z]
        log_q = posterior.log_prob(tau)
        if path_only:
            # Total derivative less the score. A second pass through q with its parameters detached would
            # score another distribution wherever q has dropout.
            score = posterior.log_prob(tau.detach())
            log_q = log_q - (score - score.detach())
        return Particles(tau, log_q, self.p.log_joint(x, tau))

    def advance(self) -> None:
        """Move the persistent chains on. Call once before each training step."""
        self.p.advance()

    def parts(self) -> dict[str, nn.Module]:
        """Modules by parameter group: q, then those of p, then the estimator's auxiliary, if any."""
        auxiliary = {} if self.auxiliary is None else {"auxiliary": self.auxiliary}
        return {"q": self.q, **self.p.parts(), **auxiliary}

    @torch.no_grad()
    def divergence(self, x: Tensor, log_data: Tensor, taus: Tensor) -> Divergence:
        """Compute the joint KL and its bound exactly, on a world small enough to be listed.

        Args:
            x: every datum that D supports [N, *X].
            log_data: log D(x) [N], nats.
            taus: every latent [S, *Z].
        Returns:
            KL(q || p), KL - E_D[log D], and E_D[-log p(x)], where p is normalized by listing.
        """
        support = taus.unsqueeze(1).expand(-1, len(x), *taus.shape[1:])  # [S, N, *Z]
        log_q = self.q(x).log_prob(support).double()  # [S, N]
        log_p = self.p.log_joint(x, support).double()
        if self.p.unnormalized is not None:
            log_p = log_p - self.p.unnormalized.log_prob(taus).double().logsumexp(0)
        data = log_data.double().exp()
        kl = (data * log_q.exp() * (log_data + log_q - log_p)).sum()
        return Divergence(
            kl=kl.item(),
            bound=(kl - (data * log_data).sum()).item(),
            nll=-(data * log_p.logsumexp(0)).sum().item(),
        )
