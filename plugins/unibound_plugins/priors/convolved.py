"""The aggregated posterior as a prior: the data, seen through q."""

import math

import torch
from torch import Tensor

from unibound import Inference, Prior, UsageError, hookimpl
from unibound.distributions import pairwise_log_prob

MAX_ROWS, MAX_ELEMENTS = 1 << 11, 1 << 21  # latents, and elements of latents against data, in memory at once


class Convolved(Prior):
    """p(tau) = (1 / N) sum_n q(tau | x_n), over the N training data: normalized, and exact.

        KL(q(x, tau) || p(x, tau)) = R + I - H(D),  R = E_q[-log p(x | tau)],  I = E_q[log q(tau | x) - log p(tau)]

    It is the best prior for given q, and has no parameters: where q has some, the gradient of log_prob
    goes to them. Each log_prob passes all training data through q, so its cost grows with N. A latent that
    no training datum could have become has probability zero, or as good as zero.

    `bind` must have been called, as a run does. The data are no part of the state that is saved.

    Args:
        event_shape: shape [*Z] of one latent.

    Source: Bachman and Precup, "Training deep generative models: variations on a theme" (2015); Makhzani
    et al., "Adversarial autoencoders" (2016), https://arxiv.org/abs/1511.05644, for the name.
    """

    support = None  # whatever q is over
    x: Tensor

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape)
        self.register_buffer("x", torch.empty(0), persistent=False)
        self._q: tuple[Inference, ...] = ()  # in a tuple, so that its parameters are q's alone

    @torch.no_grad()
    def bind(self, q: Inference, x: Tensor) -> None:
        if (shape := q(x[:1]).event_shape) != self.event_shape:
            raise UsageError(
                f"convolved is over all of tau, here of shape {list(shape)}, and not over a part of shape "
                f"{list(self.event_shape)}; use a model whose prior is of all its latents, or another prior"
            )
        self._q, self.x = (q,), x

    @property
    def q(self) -> Inference:
        """The inference network whose aggregate this is. Raises UsageError before `bind`."""
        if not self._q:
            raise UsageError("convolved is made of q and the training data, and has seen neither; call bind(q, x)")
        return self._q[0]

    def log_prob(self, tau: Tensor) -> Tensor:
        rows = tau.reshape(-1, *self.event_shape)  # [R, *Z]
        log_p = torch.cat([self._log_mean(some) for some in rows.split(MAX_ROWS)])
        return log_p.view(tau.shape[: tau.dim() - len(self.event_shape)])

    def _log_mean(self, rows: Tensor) -> Tensor:
        chunk = max(1, MAX_ELEMENTS // max(1, rows.numel()))
        sums = [pairwise_log_prob(self.q(x), rows).logsumexp(-1) for x in self.x.split(chunk)]  # each [R]
        return torch.stack(sums).logsumexp(0) - math.log(len(self.x))

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        q = self.q
        chosen = torch.randint(len(self.x), (count,), device=self.x.device)
        return q(self.x[chosen]).sample()


@hookimpl
def register_priors(register):
    register("convolved", Convolved)
